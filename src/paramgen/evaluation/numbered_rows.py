"""The rows of an evaluation, by their number: the references, the generators, the baselines. N: networks of a row."""

from functools import cached_property

from paramgen.evaluation.baselines import baseline_networks, by_score
from paramgen.evaluation.bench import Bench
from paramgen.evaluation.fine_tuning import FineTuning
from paramgen.evaluation.network_set import NetworkSet, NetworkStates, complete, generated
from paramgen.evaluation.pool import NewTasks, Pool, conditions_of, seen_tasks
from paramgen.evaluation.references import references
from paramgen.evaluation.rows import MeasuredRow, row_or_reason
from paramgen.evaluation.score_store import ScoreStore
from paramgen.evaluation.scoring import Scoring
from paramgen.evaluation.setup import Setup
from paramgen.evaluation.zoo_weights import zoo_weights


class NumberedRows:
    """Draws the networks of rows, scores and measures them.

    Args:
        setup: What to measure.
        store: Scores that shards computed; None: all are computed here.

    Raises:
        ParamgenError: The zoo has fewer than two training networks; finetune without a task that has data; for a family: no networks of the
            unseen tasks, or samples that name no tasks, none of an unseen one, or one that the family does not have.
    """

    def __init__(self, setup: Setup, store: ScoreStore | None = None) -> None:
        self.setup, self.store = setup, store
        zoo, tasks = setup.zoo, setup.tasks
        self.weights = zoo_weights(zoo, setup.device)
        self.scoring = None if tasks is None else Scoring(tasks, setup.device, setup.split, setup.train_items, store)
        self.references = references(zoo, self.weights, tasks)
        self.given = [*self.references, *(generated(s, zoo, tasks, setup.each) for s in setup.samples)]
        self.base = {name: tensor.to(setup.device) for name, tensor in zoo.base().items()}
        self._last: tuple[NetworkSet, NetworkStates] | None = None
        self.fine_tuning: FineTuning | None = None
        if setup.finetune:
            first = self.references[0]
            self.fine_tuning = FineTuning(tasks, zoo, first, self.states(first), setup.device, store)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.given) + len(self.setup.baselines)

    @cached_property
    def bench(self) -> Bench:
        """Where rows are measured; it scores the first row."""
        setup = self.setup
        bench = Bench(
            setup.zoo, self.weights, self.scoring, self.references[0], self.states, setup.device, self.fine_tuning
        )
        if setup.aligned:
            bench.align()
        return bench

    def networks(self, number: int) -> NetworkSet:
        """The networks of a row; those of a baseline are drawn each time."""
        if number < len(self.given):
            return self.given[number]
        name = self.setup.baselines[number - len(self.given)]
        pool = self._pool(by_score(name))
        return baseline_networks(name, pool, self.setup.zoo, self.setup.each, self.setup.seed)

    def row_or_reason(self, number: int, networks: NetworkSet | None = None) -> MeasuredRow:
        """A row; of a baseline that fails, a row with the reason.

        Args:
            number: Of the row.
            networks: Its networks, where they have been drawn.
        """
        if number < len(self.given):
            return self.bench.row(self.given[number])
        name = self.setup.baselines[number - len(self.given)]
        return row_or_reason(name, lambda: self.bench.row(self.networks(number) if networks is None else networks))

    def states(self, networks: NetworkSet) -> NetworkStates:
        """Complete state dicts of a row's networks; none of a method without weights. Those of the last row are kept."""
        if self._last is None or self._last[0] is not networks:
            weights = None if networks.weights is None else networks.weights.to(self.setup.device)
            self._last = networks, complete(weights, self.setup.zoo.spec, self.base)
        return self._last[1]

    def knows(self, networks: NetworkSet) -> bool:
        """Whether all scores of a row have been computed."""
        steps = self.fine_tuning is None or self.fine_tuning.knows(networks)
        return steps and (self.scoring is None or self.scoring.knows(networks, self.states(networks)))

    def _pool(self, with_scores: bool) -> Pool:
        """What a baseline may see."""
        zoo, tasks, weights, new = self.setup.zoo, self.setup.tasks, self.weights.training.cpu(), None
        if tasks is not None and tasks.unseen:
            new = NewTasks(tasks.unseen, conditions_of(zoo, tasks.unseen), seen_tasks(zoo, weights), self.setup.split)
        goodness = self.bench.goodness() if with_scores else None
        start, sizes = zoo.start(), tuple(t.numel for t in zoo.spec.tensors)
        return Pool(weights, goodness, sizes, zoo, tasks, new, None if start is None else zoo.spec.flatten(start))
