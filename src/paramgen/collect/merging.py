"""``paramgen zoo merge``: put the shards of a zoo together."""

from collections.abc import Sequence

from paramgen.collect.doubts import zoo_doubts
from paramgen.core.counting import counted
from paramgen.core.intake import first_difference
from paramgen.core.io import read_tensors, sha256, write_tensors
from paramgen.core.locks import locked
from paramgen.core.shards import complete_merge, complete_shards, delete_shards
from paramgen.core.zoo import START, Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.tasks import family_of

# what zoo.json of a shard says of itself alone
_OF_SHARDS = ("shard", "start_score", "seconds", "statistics", "entries")


def merge(zoo: str, trust: bool = False) -> Zoo:
    """Put the shards of a zoo together: the zoo that one process would have collected. To resume, rerun the command.

    Networks are linked where the file system permits it, otherwise copied; the shards are deleted at the end.

    Args:
        zoo: Folder of the zoo, as given to ``paramgen collect --shard i/N --out``.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: A shard is missing, incomplete, damaged or of another recipe; it is named.
    """
    if complete_merge(zoo, "zoo.json"):
        return Zoo(zoo, trust)
    shards = [Zoo(folder, trust) for folder in complete_shards(zoo, "zoo.json")]
    for shard in shards[1:]:
        _check_alike(shards[0], shard)
    with locked(zoo):
        merged = _merged(zoo, shards)
        delete_shards(zoo)
    print(f"{counted(len(merged), 'network')} of {counted(len(shards), 'shard')} in {merged.path}")
    return merged


def _merged(zoo: str, shards: Sequence[Zoo]) -> Zoo:
    first = shards[0]
    writer = ZooWriter(zoo, first.spec, first.base(), first.task_config, first.meta["recipe"])
    if (first.path / START).exists():
        write_tensors(writer.path / START, read_tensors(first.path / START))
    done = writer.done
    for shard in shards:
        for index, entry in enumerate(shard.entries):
            if (entry.run, entry.step) not in done:
                writer.adopt(shard.file(index), entry)
        writer.sync()
    return writer.close(**_meta(shards, writer))


def _check_alike(first: Zoo, other: Zoo) -> None:
    """Refuse shards that are not of one zoo: another task, recipe, spec or start, or other tensors that are not generated."""
    for key in ("task", "recipe", "spec", "score", "condition"):
        if first.meta.get(key) != other.meta.get(key):
            raise ParamgenError(f"{other.path} and {first.path} are not shards of one zoo: they differ in {key}")
    if (name := first_difference(first.base(), other.base())) is not None:
        raise ParamgenError(f"{other.path} and {first.path} are not shards of one zoo: {name!r} differs")
    starts = [sha256(zoo.path / START) if (zoo.path / START).exists() else None for zoo in (first, other)]
    if starts[0] != starts[1]:
        raise ParamgenError(f"{other.path} and {first.path} did not start from the same {START}")


def _meta(shards: Sequence[Zoo], writer: ZooWriter) -> dict[str, object]:
    """What zoo.json says of all shards together; the seconds of all of them are added."""
    first = shards[0]
    known = {*_OF_SHARDS, "format", "task", "recipe", "spec", "warnings"}
    meta = {key: value for key, value in first.meta.items() if key not in known}
    seconds = [shard.meta.get("seconds") for shard in shards]
    if all(s is not None for s in seconds):
        meta["seconds"] = sum(seconds)
    if any("val" in entry.scores for entry in writer.entries):
        most, start = first.meta["recipe"].get("score_images"), first.meta.get("start_score")
        entries = sorted(writer.entries, key=lambda e: (e.run, e.step))
        if warnings := zoo_doubts(entries, family_of(first), most, start):
            meta["warnings"] = warnings
    return meta
