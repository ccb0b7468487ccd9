"""A shard's part of an evaluation: scores of its part of the networks, and rows whose scores are all there.

Scores of references and generators are divided network by network, every n-th one for each shard. The baselines' networks, row after row,
are cut into n equal pieces, so that a shard draws few of the baselines. A row is measured by the first shard that finds all of its scores.
Where shards do not see each other's folders, or do not run at the same time, rows are left for the last one or for the merge.
N: networks of a row.
"""

from collections.abc import Sequence

from paramgen.core.shard_progress import ShardProgress
from paramgen.errors import ParamgenError
from paramgen.evaluation.baselines import by_score
from paramgen.evaluation.network_set import NetworkSet
from paramgen.evaluation.numbered_rows import NumberedRows
from paramgen.evaluation.row_store import RowStore
from paramgen.evaluation.score_store import ScoreStore
from paramgen.evaluation.setup import Setup


class Share:
    """One shard.

    Args:
        setup: What to measure.
        store: Where its scores go; it says which shard this is.

    Raises:
        ParamgenError: A zoo without a task, which has nothing to score; more shards than networks; as :class:`NumberedRows`.
    """

    def __init__(self, setup: Setup, store: ScoreStore) -> None:
        if setup.tasks is None:
            zoo = setup.zoo.name
            raise ParamgenError(f"zoo {zoo!r} has no task: without scores there is nothing to divide; remove --shard")
        assert store.shard is not None
        self.setup, self.store, self.shard = setup, store, store.shard
        self.rows = NumberedRows(setup, store)
        networks = sum(map(len, self.rows.given)) + len(setup.baselines) * setup.each
        self.shard.require(networks, "networks")
        self.row_store = RowStore(store.out, setup.key, store.shard)
        self._complete = False  # whether all scores of the references have been computed

    def run(self) -> None:
        """Compute and store this shard's part, and show how many networks all shards have scored."""
        given = self.rows.given
        work = {i: self.shard.share(range(len(networks))) for i, networks in enumerate(given)} | self.pieces()
        with ShardProgress(self.shard, self.store.out) as progress:
            progress.expect("score", sum(map(len, work.values())))
            for number, places in work.items():
                progress.begin("score", len(places))
                if number < len(given):
                    self._score(given[number], places)
                else:
                    self._baseline(number, places)
                progress.update(len(places))
        for number in range(len(self.rows)):
            self._measure(number)

    def pieces(self) -> dict[int, Sequence[int]]:
        """Which networks of which baselines are scored here; those that choose by scores of the zoo's networks come last."""
        names, given, each = self.setup.baselines, len(self.rows.given), self.setup.each
        order = sorted(range(len(names)), key=lambda i: by_score(names[i]))
        if self.setup.finetune:  # steps of the first networks of a row cost more than the others' scores
            return {given + i: self.shard.share(range(each)) for i in order}
        begin, end = (len(names) * each * k // self.shard.count for k in (self.shard.number - 1, self.shard.number))
        pieces = {}
        for place, i in enumerate(order):
            first = place * each
            pieces[given + i] = range(max(begin, first) - first, max(min(end, first + each) - first, 0))
        return {number: piece for number, piece in pieces.items() if piece}

    def _baseline(self, number: int, places: Sequence[int]) -> None:
        """Score some networks of a baseline, and measure it if no other shard scores any."""
        if not self._can_draw(number) or (networks := self._drawn(number)) is None:
            return
        self._score(networks, [place for place in places if place < len(networks)])
        if len(places) == len(networks):
            self._measure(number, networks)

    def _measure(self, number: int, networks: NetworkSet | None = None) -> None:
        """Measure a row if all scores that it takes have been computed."""
        if not self._references_are_scored():
            return
        with self.row_store.claimed(number) as free:
            if free and networks is None:
                networks = self._drawn(number)
            if not free or networks is None:
                return
            self.store.refresh()
            if self.rows.knows(networks):
                measured = self.rows.row_or_reason(number, networks)
                if measured.row.n:
                    self.row_store.put(number, measured)

    def _score(self, networks: NetworkSet, places: Sequence[int]) -> None:
        assert self.rows.scoring is not None
        self.rows.scoring.share(networks, self.rows.states(networks), places)
        if self.rows.fine_tuning is not None:
            self.rows.fine_tuning.share(networks)

    def _drawn(self, number: int) -> NetworkSet | None:
        """The networks of a row; None of a baseline that fails, whose row says why when the shards are put together."""
        try:
            return self.rows.networks(number)
        except Exception:
            if number < len(self.rows.given):
                raise
            return None

    def _can_draw(self, number: int) -> bool:
        name = self.setup.baselines[number - len(self.rows.given)]
        return not by_score(name) or self._references_are_scored()

    def _references_are_scored(self) -> bool:
        """Whether all shards have scored their part of the references, with which rows are compared."""
        if not self._complete:
            self.store.refresh()
            self._complete = all(self.rows.knows(networks) for networks in self.rows.references)
        return self._complete
