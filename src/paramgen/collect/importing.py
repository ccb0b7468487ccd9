"""``paramgen zoo import``: make a zoo of existing checkpoints."""

import logging
from collections.abc import Sequence
from typing import Any

from paramgen.collect.announce import announce, first_run
from paramgen.collect.candidates import Candidates
from paramgen.collect.doubts import unscored
from paramgen.collect.placing import Placed, Places, place
from paramgen.collect.preview import preview
from paramgen.collect.readers import open_source
from paramgen.collect.readers.conditions import RecordedConditions, condition_words, recorded
from paramgen.collect.readers.found import Layout, Reading
from paramgen.collect.recorded_scores import RecordedScores, recorded_scores
from paramgen.core.counting import counted
from paramgen.core.params import StateDict
from paramgen.core.progress import ProgressDisplay
from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import PARTS, SplitScores, Zoo
from paramgen.core.zoo_writer import ZooWriter, check_resumable
from paramgen.errors import ParamgenError, UnscoredError, require_non_negative
from paramgen.tasks import Task
from paramgen.tasks.score import plain_scores, without_score
from paramgen.tasks.scorer import scorer_task

_log = logging.getLogger(__name__)


def import_(
    source: str,
    out: str | None = None,
    task: Task | None = None,
    pattern: str | None = None,
    table: str | None = None,
    layout: str | None = None,
    key: str | None = None,
    prefix: str | None = None,
    base: str | None = None,
    parameters: list[str] | None = None,
    condition: list[str] | None = None,
    one_run: bool = True,
    val_networks: int = 0,
    heldout_networks: int = 0,
    score: bool = True,
    scorer: str | None = None,
    network: str | None = None,
    lower_is_better: bool = False,
    margin: float = 0.01,
    skip_bad: bool = False,
    dry_run: bool = False,
) -> None:
    """Make a zoo of existing checkpoints: a folder of .safetensors, .pt, .pth, .ckpt or .bin files, or another layout of docs/import.md.

    All networks are checked before anything is written, so a failed import leaves no files. Without a task, the first
    network defines the tensors; nothing is built, run or scored.

    Args:
        source: Folder with one file per network, read in natural order of file names (8, 9, 10), a source of another layout, or a
            repository on the Hugging Face Hub: hf://owner/name@revision/pattern.
        out: Folder of the new zoo.
        task: Architecture, data and score of the networks. Default: none; only the weights are known.
        pattern: Which paths in the source to take, and what they say: 'run{run}/step{step}_acc{val.accuracy}.pth'. Fields: run, step,
            seed, split, parent, condition, condition.NAME, train.NAME, val.NAME; ``*`` is any text, ``**/`` any folders.
        table: CSV file with a row per network to take: its path in the source, and columns named like the fields of a pattern. Or a
            safetensors file with a condition vector per network, under its path.
        layout: Layout of the source. Default: recognised.
        key: Which state dict of a checkpoint that holds several, for example state_dict_ema; which part of a pipeline, for example unet.
        prefix: Prefix to remove from every name, for example ``model.``; names without it are ignored. Default: module., _orig_mod.,
            model. and network. are removed where all names of a file begin with them; '' removes nothing.
        base: File with the tensors that are not generated, if the other files contain only the generated ones.
        parameters: Names, globs, ``re:`` patterns or subsets to generate. Default: all.
        condition: Names of the recorded conditions to use, in this order; [] for none. Default: all that differ between networks.
        one_run: Networks of which no run and no condition is known are steps of one run (all training data). Otherwise each is a run.
        val_networks: With separate runs: number of validation networks, before the held-out ones; whole runs.
        heldout_networks: With separate runs: number of held-out networks (the last ones); whole runs.
        score: Record scores on the task's train and val splits. Without a task, scores that the source records are kept.
        scorer: Instead of a task: a function of your own, ``package.module.function``, that is called with each loaded network and
            returns its score. Short for ``--task ScorerTask``, which has more options.
        network: With `scorer`: the networks' class, ``package.module.Class``, also of a module in the working folder.
        lower_is_better: With `scorer` or recorded scores: a lower score is better.
        margin: With `scorer` or recorded scores: a network is good when its score is not worse than the zoo's mean by more than this.
        skip_bad: Leave out networks that are damaged, hold NaN or do not fit, and list them.
        dry_run: Check all networks and show what would be taken. Nothing is written.

    Raises:
        ParamgenError: No networks, a pickle with code in it, tensors that do not fit the architecture or are neither generated nor equal
            in all files, NaN or infinite values.
        UnscoredError: After the import: the scorer raised an error on some networks, which have no score.
    """
    if (short := scorer_task(scorer, network, lower_is_better, margin)) is not None:
        if task is not None:
            raise ParamgenError("give a task or a scorer, not both")
        task = short
    require_non_negative(val_networks=val_networks, heldout_networks=heldout_networks)
    if out is None and not dry_run:
        raise ParamgenError("give the folder of the new zoo with --out; --dry_run writes nothing")
    opened = open_source(source, layout, Reading(pattern, table, key))
    candidates = Candidates(opened, None if task is None else task.build(), parameters or ["all"], prefix, base)
    kept = candidates.check([*opened.find()], skip_bad or dry_run, most=not dry_run)
    placed = place(kept, one_run, val_networks, heldout_networks)
    networks = [row.found for row in placed.networks]
    conditions = recorded(networks, [row.run for row in placed.networks], condition, opened.chosen)
    scored_by = task if score else None
    scores = recorded_scores([] if scored_by else networks, lower_is_better, margin)
    _check_score(scores, task)
    for line in [*opened.notes, *candidates.words(), *scores.notes, *_words(conditions)]:
        _log.info(line)
    if dry_run:
        print(f"layout {opened.name}: {opened.what}")
        _show(placed, scores, conditions, candidates)
        return
    assert out is not None
    given = {"prefix": prefix, "base": base, "key": key}
    recipe = {"imported_from": source, "files": [f.name for f in kept], **given, **_origin(opened, candidates, placed)}
    config = None if task is None else task.config()
    check_resumable(out, config, recipe)
    if scored_by is not None:
        with first_run():  # before anything is written
            scored_by.evaluate([{**candidates.read(networks[0])}], "train", most=2)
    writer = ZooWriter(out, candidates.spec, candidates.base, config, recipe)
    if scored_by is not None:
        announce(scored_by, {**candidates.read(networks[0])}, len(networks) - len(writer.done))
    failed = _write(writer, candidates, placed.networks, scored_by, scores.scores, conditions.vectors)
    zoo = _close(writer, scores.spec if task is None else task.score, conditions)
    without = ", without a task" if task is None else ""
    print(f"{counted(len(zoo), 'network')} of {counted(zoo.spec.numel, 'generated parameter')}{without}, in {zoo.path}")
    if failed:
        raise UnscoredError(
            f"{len(failed)} of {len(zoo)} networks have no score, because the scorer raised an error: "
            f"{', '.join(failed)}. {zoo.path} is complete"
        )


def _origin(opened: Layout, candidates: Candidates, placed: Places) -> dict[str, Any]:
    """What the recipe says about the source: its layout, what it records, networks that were left out, and names of runs."""
    found = {"layout": opened.name, **opened.origin, **opened.recipe()}
    if candidates.problems:
        found["skipped"] = candidates.problems
    if placed.runs:
        found["runs"] = {str(number): name for number, name in placed.runs.items()}
    return found


def _close(writer: ZooWriter, spec: ScoreSpec | None, conditions: RecordedConditions) -> Zoo:
    """Write zoo.json, with warnings about networks without scores."""
    warnings = unscored(writer.entries)
    for warning in warnings:
        _log.warning("warning: %s", warning)
    known = {
        "score": None if spec is None else spec.to_dict(),
        "warnings": warnings or None,
        "condition": conditions.config() if conditions.vectors else None,
    }
    return writer.close(**{name: value for name, value in known.items() if value is not None})


def _write(
    writer: ZooWriter,
    candidates: Candidates,
    places: Sequence[Placed],
    scored_by: Task | None,
    scores: Sequence[SplitScores],
    conditions: Sequence[list[float]] | None,
) -> dict[str, str]:
    """Read each network again and write it; returns those whose scorer raised an error, with the error."""
    failed: dict[str, str] = {}
    done = writer.done  # networks of the same command, which was interrupted
    with ProgressDisplay() as progress:
        progress.begin("import", len(places))
        for i, row in enumerate(places):
            progress.update(i)
            if (row.run, row.step) in done:
                continue
            found, state = row.found, candidates.read(row.found)
            writer.add(
                state,
                run=row.run,
                step=row.step,
                seed=found.seed,
                split=row.split,
                parent=found.parent,
                condition=None if conditions is None else conditions[i],
                scores=scores[i] if scored_by is None else _scores(scored_by, {**state}, found.name, failed),
            )
            progress.written += 1
            del state  # before the next one is read
        progress.update(len(places))
    return failed


def _show(placed: Places, scores: RecordedScores, conditions: RecordedConditions, candidates: Candidates) -> None:
    """The tables of a dry run."""
    known = scores.scores or [{} for _ in placed.networks]
    odd = candidates.problems | {name: f"the same network as {other}" for name, other in candidates.copies.items()}
    preview(placed.networks, known, conditions.vectors, odd, candidates.spec, candidates.base)
    networks = f"{counted(len(placed.networks), 'network')} of {counted(candidates.spec.numel, 'generated parameter')}"
    print(f"{networks} in {counted(len({row.run for row in placed.networks}), 'run')} would be taken")
    if candidates.problems:
        print(
            f"{len(candidates.problems)} cannot be taken: the import stops at the first, or leaves them out with --skip_bad"
        )


def _words(conditions: RecordedConditions) -> list[str]:
    """What the numbers of the conditions are, and which parts are left out."""
    lines = []
    if conditions.left_out:
        listed = ", ".join(conditions.left_out)
        lines.append(f"not a condition, as it is equal in all networks or names each run: {listed}")
    if conditions.vectors:
        lines.append(f"condition: {condition_words(conditions.config())}")
    return lines


def _check_score(scores: RecordedScores, task: Task | None) -> None:
    """Refuse recorded scores that are not those of the task."""
    if task is not None and scores.spec is not None and scores.spec.name != task.score.name:
        raise ParamgenError(
            f"the source records {scores.spec.name}, the task's score is {task.score.name}; "
            "compute the scores with --score true, or import without a task"
        )


def _scores(task: Task, state: StateDict, name: str, failed: dict[str, str]) -> SplitScores:
    """One network's scores by split; why it has none is logged under its name, and errors are added to `failed`."""
    results = {part: task.evaluate([state], part) for part in PARTS}
    for reason in dict.fromkeys(reason for scores in results.values() for reason in without_score(scores).values()):
        _log.warning("%s has no score: %s", name, reason)
    for scores in results.values():
        if scores.failed:
            failed[name] = scores.failed[0]
    return {part: plain_scores(scores, 0) for part, scores in results.items()}
