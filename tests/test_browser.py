"""The page in a real browser: it draws, it fetches nothing, every picture has words, and its script raises nothing."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from palp_lab.report import report
from palp_lab.study.answers import Key, read_answers, score_answers
from palp_lab.study.ledger import collect
from palp_lab.study.questionnaire import write_kit
from tests.study.conftest import make_study, write_study

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--virtual-time-budget=4000",
)  # fmt: skip
EARLY = """<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<script>window.troubles=[];
addEventListener('error',e=>troubles.push(String(e.message||(e.target&&e.target.outerHTML||'').slice(0,200))),true);
addEventListener('unhandledrejection',e=>troubles.push(String(e.reason)));
for(const k of ['error','warn']){const old=console[k];console[k]=(...a)=>{troubles.push(a.join(' '));old(...a)}}
addEventListener('securitypolicyviolation',e=>troubles.push('fetched '+e.blockedURI));</script>"""
"""Laid in front of the page: whatever it would fetch is refused and written down, as are errors and warnings."""
LATE = """<script>addEventListener('load',()=>setTimeout(()=>{
const all=q=>document.querySelectorAll(q),mark=all('svg.front .mark')[0],tip=document.getElementById('tip');
mark.dispatchEvent(new Event('focus'));const told=tip.textContent,shown=tip.style.opacity;
mark.dispatchEvent(new Event('blur'));
const chip=all('.chips button')[0];chip.click();const off=all('.front .off').length;chip.click();
const seen={troubles,told,shown,off,on:all('.front .off').length,
images:[...document.images].map(i=>({alt:i.alt,width:i.naturalWidth,done:i.complete,source:i.src.slice(0,40)})),
overflow:document.documentElement.scrollWidth-innerWidth,height:document.documentElement.scrollHeight,
front:all('svg.front')[0].getBoundingClientRect().width,
dead:[...all('a[href^="#"]')].filter(a=>!document.getElementById(a.hash.slice(1))).length,
heading:all('h1')[0].innerText};
const out=document.createElement('pre');out.id='probe';out.textContent=JSON.stringify(seen);
document.body.appendChild(out)},200))</script>"""
"""Laid behind the page: asks what a person would notice. Errors, pictures that did not load, a tip that does not show,
a button that does nothing, a page wider than its window."""


RATE = """<script>addEventListener('load',()=>setTimeout(()=>{
const all=q=>[...document.querySelectorAll(q)],click=(q,n)=>all(q+'[value="'+n+'"]')[0].click();
const ids=all('section').map(s=>s.dataset.id),before=document.getElementById('progress').textContent;
for(const id of ids.slice(1)){click('input[name="elements-'+id+'"]',2);click('input[name="similarity-'+id+'"]',4)}
document.getElementById('json').click();const asked=document.getElementById('progress').textContent;
document.getElementById('rater').value='Anna "A"';click('input[name="elements-'+ids[1]+'"]',1);
const given=studyAnswers.answers();
const after=document.getElementById('progress').textContent;
const seen={troubles,before,asked,after,given,csv:studyAnswers.csv(given),
first:ids[0],done:all('section.done').length,overflow:document.documentElement.scrollWidth-innerWidth,
images:[...document.images].filter(i=>i.complete&&i.naturalWidth>100).length};
const out=document.createElement('pre');out.id='probe';out.textContent=JSON.stringify(seen);
document.body.appendChild(out)},200))</script>"""
"""Laid behind the questionnaire: answers all questions but the first, forgets the name at first, reads the answers."""


@dataclass(frozen=True)
class Browser:
    """A headless Chromium with a profile of its own."""

    program: str
    profile: Path

    def __call__(self, page: Path, *more: str, width: int = 1200) -> subprocess.CompletedProcess[str]:
        place = (f"--user-data-dir={self.profile}", f"--window-size={width},900")
        command = [self.program, *FLAGS, *place, *more, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"NO BROWSER: the report was not opened; none of {', '.join(NAMES)} is in PATH")
    return Browser(program, tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the synthetic study."""
    place = tmp_path_factory.mktemp("report")
    folder = write_study(make_study(), place / "study")
    conf = OmegaConf.load(Path(__file__).parents[1] / "conf" / "report.yaml")
    given = {"output": str(place / "out"), "seed": 0, "study_name": "synthetic", "logger": {"name": "csv"}}
    return report(OmegaConf.merge(given, conf, {"results": [str(folder)], "resamples": 25}))  # type: ignore[arg-type]


def probe(browser: Browser, page: Path, width: int, late: str = LATE) -> dict[str, Any]:
    """What the page, with the questions laid into it, says about itself."""
    text = page.read_text(encoding="utf-8")
    assert text.count("<head>") == 1 and text.count("</body>") == 1
    asked = page.with_name(f"asked_{width}.html")
    asked.write_text(text.replace("<head>", "<head>" + EARLY).replace("</body>", late + "</body>"), encoding="utf-8")
    dom = browser(asked, "--dump-dom", width=width).stdout
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)
    assert found, "the page never finished loading"
    return json.loads(html.unescape(found.group(1)))


@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_works_and_needs_nothing_but_itself(browser: Browser, page: Path, width: int) -> None:
    seen = probe(browser, page, width)
    assert seen["troubles"] == []
    assert seen["images"] and all(image["source"].startswith("data:image/png") for image in seen["images"])
    assert all(image["done"] and image["width"] > 100 and len(image["alt"]) > 20 for image in seen["images"])
    assert len(seen["images"]) == 5
    assert seen["shown"] == "1" and any(digit in seen["told"] for digit in "0123456789")
    assert (seen["off"] > 0) and seen["on"] == 0
    assert seen["dead"] == 0 and seen["heading"] == "PALP against TI + DB"
    assert seen["overflow"] <= 1, "the page scrolls sideways"
    assert seen["front"] > 0.75 * min(width, 900) and seen["height"] > 2000


@pytest.mark.parametrize("width", [1200, 500])
def test_the_questionnaire_is_answered_without_a_network(browser: Browser, tmp_path: Path, width: int) -> None:
    """What the page's own script saves is what the scoring reads."""
    cats = [result for result in make_study() if result.axes["concept"] == "cat 11"]
    results = collect([write_study(cats, tmp_path / "study")])
    (page,) = write_kit(results, tmp_path / "kit", "Pictures of one subject")
    seen = probe(browser, page, width, RATE)
    given, questions = seen["given"], len(seen["given"]["answers"])
    assert seen["troubles"] == [] and seen["overflow"] <= 1
    assert questions > 8 and seen["images"] == 2 * questions
    assert (seen["before"], seen["after"]) == (f"0 of {questions} answered", f"{questions - 1} of {questions} answered")
    assert "write your name first" in seen["asked"] and seen["done"] == questions - 1
    key = Key.read(tmp_path / "kit" / "key.json")
    (tmp_path / "anna.json").write_text(json.dumps(given))
    (tmp_path / "anna.csv").write_text(seen["csv"])
    for name in ("anna.json", "anna.csv"):
        answers = read_answers([tmp_path / name], key)
        assert len(answers) == questions - 1 and set(answers["rater"]) == {'Anna "A"'}
        assert set(answers["similarity"]) == {4.0} and seen["first"] not in set(answers["item"])
    assert [row[0] for row in score_answers(answers, resamples=10)[0].rows] == ["PALP", "Textual Inversion", "TI + DB"]


def test_the_probe_notices_a_broken_page(browser: Browser, tmp_path: Path) -> None:
    """The test above would pass on silence; this proves that fetches and errors are heard."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        f"<!doctype html><html><head>{EARLY}<link rel=stylesheet href='https://fonts.invalid/a.css'></head><body>"
        "<img src='beside.png' alt=''><script src='https://cdn.invalid/b.js'></script><script>nothing()</script><script>"
        "addEventListener('load',()=>setTimeout(()=>{document.body.innerText=troubles.join('; ')},200))</script></body>"
    )
    dom = browser(broken, "--dump-dom").stdout
    for heard in ("fetched https://fonts.invalid", "fetched file", "fetched https://cdn.invalid", "nothing is not"):
        assert heard in dom


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_something_is_drawn(browser: Browser, page: Path, tmp_path: Path, dark: bool) -> None:
    shot = tmp_path / "shot.png"
    done = browser(page, f"--screenshot={shot}", "--enable-logging=stderr", *(["--force-dark-mode"] if dark else []))
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    with Image.open(shot) as picture:
        small = picture.convert("RGB")
        assert small.width == 1200
        colours = small.getcolors(maxcolors=1 << 24)
    assert colours is not None and len(colours) > 100, "an empty page"
    share, ground = max(colours)
    assert share < 0.97 * small.width * small.height
    assert sum(ground) > 600 or dark
