"""A search where a grid is too large: Optuna proposes cells, whose text alignment and identity it then is told.

Optuna is asked and told; training, drawing and scoring are the cells' own, so that what a trial has made is found again
by content like everything else. Finished trials are kept in a journal, with which the same command goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

OBJECTIVES = ("text alignment", "identity")
"""What `run` returns of a cell, both the higher the better: means over its prompts at the last step."""

SAMPLERS = ("nsga2", "tpe", "random")

STANDS_FOR = "stands_for"
"""Attribute of a trial that repeats one whose process ended: the number of that one, which no longer counts."""


class Search:
    """A study of Optuna over the overrides of one command. Final.

    Args:
        overrides: of the command; those with several values (`a,b`, `choice(a,b)`, `range(1,9)`, `interval(.01,1)`,
            `int(interval(2,8))`, `tag(log,interval(.01,1))`) are searched, the others are given to every cell.
        sampler: one of `SAMPLERS`.
        seed: of the sampler. A search that was interrupted goes on, but not as it would have without.
        journal: the file the trials are kept in.
        name: of the study in the journal.

    Raises:
        UserError: where nothing is to be searched, or Optuna is not installed.
    """

    def __init__(self, overrides: Sequence[Override], sampler: str, seed: int, journal: Path, name: str) -> None:
        last = {one.get_key_element(): one for one in overrides}
        self.fixed = [
            f"{key}={one.get_value_element_as_str()}" for key, one in last.items() if not one.is_sweep_override()
        ]
        searched = {key: one for key, one in last.items() if one.is_sweep_override()}
        if not searched:
            raise UserError(
                "hydra/sweeper=optuna: nothing to search; give a key several values, e.g. "
                "'losses.prompt_alignment.weight=tag(log,interval(0.01,1))'"
            )
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = {key: _distribution(optuna, one) for key, one in searched.items()}
        journal.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
        self.study = optuna.create_study(
            storage=storage, study_name=name, directions=["maximize"] * 2, load_if_exists=True
        )
        self._states = optuna.trial.TrialState
        # A search that goes on would else propose its first cells again.
        self.study.sampler = _sampler(optuna, sampler, seed + len(self.study.get_trials(deepcopy=False)))
        for trial in self.study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            # Its process has ended; its cell is tried first, and goes on from its checkpoint.
            self.study.tell(trial.number, state=self._states.FAIL)
            if trial.params.keys() == self.space.keys():
                self.study.enqueue_trial(dict(trial.params), user_attrs={STANDS_FOR: trial.number})

    def finished(self) -> int:
        """Trials that have ended, well or not, without those whose process ended and that are tried again."""
        trials = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get(STANDS_FOR) for trial in trials}
        ended = (self._states.COMPLETE, self._states.FAIL)
        return sum(trial.state in ended and trial.number not in again for trial in trials)

    def ask(self, count: int) -> list[tuple[int, list[str]]]:
        """The next trials: their numbers and the overrides of their cells."""
        trials = [self.study.ask(fixed_distributions=dict(self.space)) for _ in range(count)]
        return [(one.number, [*self.fixed, *(f"{key}={one.params[key]}" for key in self.space)]) for one in trials]

    def tell(self, number: int, values: Any) -> None:
        """What a cell returned; a trial without two numbers has failed."""
        told = list(values) if isinstance(values, Sequence) and len(values) == len(OBJECTIVES) else []
        if told and all(isinstance(value, int | float) and math.isfinite(value) for value in told):
            self.study.tell(number, told)
        else:
            self.study.tell(number, state=self._states.FAIL)

    def front(self) -> list[tuple[Mapping[str, Any], Sequence[float]]]:
        """Parameters and values of the trials that no other dominates, by falling text alignment.

        Raises UserError where no trial has both values: a search that has found nothing is no success.
        """
        best = sorted(self.study.best_trials, key=lambda trial: -trial.values[0])
        if not best:
            raise UserError(
                f"{self.study.study_name}: none of {self.finished()} trials has a {' and an '.join(OBJECTIVES)}; "
                "see what failed above, or choose metrics= that measure both"
            )
        return [(trial.params, trial.values) for trial in best]


def run_search(
    search: Search, trials: int, at_once: int, launch: Callable[[Sequence[Sequence[str]], int], Sequence[Any]]
) -> None:
    """Asks and tells until the journal holds so many trials, then prints the front.

    `launch(cells, first)` runs cells, each a list of overrides, numbered from `first`, and gives what each returned.
    Raises UserError where no trial is asked for, or none has both values in the end.
    """
    for key, value in (("trials", trials), ("at_once", at_once)):
        if value < 1:
            raise UserError(f"hydra.sweeper.{key}={value}: give 1 or more")
    began = search.finished()
    while (left := trials - search.finished()) > 0:
        asked = search.ask(min(left, at_once))
        returned = launch([lines for _, lines in asked], search.finished() - began)
        for (number, _), values in zip(asked, returned, strict=True):
            search.tell(number, values)
    front = search.front()
    print(f"{len(front)} of {search.finished()} trials are on the front:")
    for params, values in front:
        told = ", ".join(f"{name} {value:.3f}" for name, value in zip(OBJECTIVES, values, strict=True))
        print(f"  {told}: {' '.join(f'{key}={value}' for key, value in params.items())}")


def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ModuleNotFoundError as error:
        raise UserError("hydra/sweeper=optuna: Optuna is not installed; pip install 'palp-lab[search]'") from error
    return optuna


def _sampler(optuna: Any, name: str, seed: int) -> Any:
    made = {
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    if name not in made:
        raise UserError(f"hydra.sweeper.sampler={name}: must be one of {', '.join(SAMPLERS)}")
    return made[name]()


def _distribution(optuna: Any, one: Override) -> Any:
    """What a swept override may be, for Optuna: an interval, else its values as they would be written."""
    if not one.is_interval_sweep():
        return optuna.distributions.CategoricalDistribution(list(one.sweep_string_iterator()))
    interval: Any = one.value()
    whole = isinstance(interval.start, int) and isinstance(interval.end, int)
    kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    try:
        return kind(interval.start, interval.end, log="log" in interval.tags)
    except ValueError as error:
        raise UserError(f"{one.get_key_element()}: {error}") from None
