"""Which trial of a study is meant: its id, or the first characters of it that no other trial has."""

from collections.abc import Sequence

from welltuned.errors import InputError, problem
from welltuned.records import Result


def chosen(results: Sequence[Result], trial_id: str) -> Result:
    """Return the trial whose id starts with `trial_id`."""
    found = {result.trial_id: result for result in results if result.trial_id.startswith(trial_id)}
    if len(found) != 1 or not trial_id:
        count = "no trial" if not found else f"{len(found)} trials"
        expected = f"the id of one ended trial, but {count} of {len(results)} match"
        raise InputError(problem("trial", trial_id, expected, "see `welltuned show`"))
    return next(iter(found.values()))
