"""The judge: what was sent, what ran and what is dead-lettered, laid side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from checker.expected import RECEIVERS
from checker.journal import Line

#: What a send may take beyond its deadline on a busy machine, in seconds.
GRACE = 1.5
#: How many tokens a message names.
NAMED = 5


@dataclass
class Books:
    """All that is known so far, from both journals and the dead-letter queues."""

    #: Token to the signal's name.
    signals: dict[str, str] = field(default_factory=dict)
    #: Token to "ok", "error", "unknown"; "unknown" too for whoever died while sending.
    outcomes: dict[str, str] = field(default_factory=dict)
    #: Token to the seconds that its send took.
    seconds: dict[str, float] = field(default_factory=dict)
    #: How often each receiver finished, by token and receiver.
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: The id that a token's message had first.
    ids: dict[str, str] = field(default_factory=dict)
    #: All ids of those that had more than one.
    renamed: dict[str, set[str]] = field(default_factory=dict)
    #: Which worker finished how many.
    workers: Counter[str] = field(default_factory=Counter)
    #: Token to why it is dead-lettered.
    dead: dict[str, str] = field(default_factory=dict)

    def sent(self, lines: Iterable[Line]) -> None:
        for line in lines:
            token = line["token"]
            self.signals[token] = line["signal"]
            if line["outcome"] == "began":
                self.outcomes.setdefault(token, "unknown")
                continue
            self.outcomes[token] = line["outcome"]
            self.seconds[token] = line["seconds"]
            self._named(token, line["id"])

    def ran(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if line["event"] == "done":
                self.effects[line["token"], line["receiver"]] += 1
                self.workers[line.get("worker") or "?"] += 1
            self._named(line["token"], line["id"])

    def _named(self, token: str, task_id: str | None) -> None:
        if task_id and self.ids.setdefault(token, task_id) != task_id:
            self.renamed.setdefault(token, {self.ids[token]}).add(task_id)

    def missing(self) -> dict[str, list[str]]:
        """The tokens that were accepted, neither done nor dead-lettered, with the receivers that have not run."""
        found = {}
        for token, outcome in self.outcomes.items():
            if outcome == "ok" and token not in self.dead:
                lacking = [name for name in RECEIVERS[self.signals[token]] if not self.effects[token, name]]
                if lacking:
                    found[token] = lacking
        return found


@dataclass(frozen=True)
class Verdict:
    """What a fault has cost."""

    #: What was done to whom, for the report.
    title: str
    outcomes: Counter[str]
    #: Accepted, but neither done nor dead-lettered: token to the receivers that have not run.
    lost: Mapping[str, list[str]]
    #: Ran, though the send was refused, or nobody sent it, or nobody of that name listens.
    invented: list[tuple[str, str]]
    #: Token to the seconds of a send that took longer than it may.
    late: Mapping[str, float]
    #: Token to the ids, where a message came under more than one.
    renamed: Mapping[str, set[str]]
    #: (token, receiver) to how often it ran beyond once.
    duplicates: Counter[tuple[str, str]]
    #: Why messages are dead-lettered, and how many.
    dead: Counter[str]
    workers: Counter[str]
    notes: Mapping[str, object]

    @classmethod
    def of(cls, title: str, books: Books, deadline: float, **notes: object) -> Verdict:
        """Judges.

        Arguments:
            deadline: The seconds that a send may take.
            notes: What else the report shows.
        """
        invented = [
            (token, receiver)
            for token, receiver in books.effects
            if books.outcomes.get(token, "error") == "error" or receiver not in RECEIVERS[books.signals[token]]
        ]
        return cls(
            title=title,
            outcomes=Counter(books.outcomes.values()),
            lost=books.missing(),
            invented=invented,
            late={token: seconds for token, seconds in books.seconds.items() if seconds > deadline + GRACE},
            renamed=books.renamed,
            duplicates=Counter({key: count - 1 for key, count in books.effects.items() if count > 1}),
            dead=Counter(books.dead.values()),
            workers=books.workers,
            notes=notes,
        )

    def require(self, *, lost_at_most: int = 0) -> None:
        """Raises AssertionError, with the tokens in question, where a promise is broken.

        Arguments:
            lost_at_most: What a worker is known to lose; the guarantees' table says which and why.
        """
        broken = []
        if len(self.lost) > lost_at_most:
            some = "; ".join(f"{token} lacks {', '.join(names)}" for token, names in _some(self.lost.items()))
            broken.append(f"{len(self.lost)} accepted messages are lost (allowed: {lost_at_most}): {some}")
        if self.invented:
            some = "; ".join(f"{token} ran in {receiver}" for token, receiver in _some(self.invented))
            broken.append(f"{len(self.invented)} runs of messages that were not accepted: {some}")
        if self.late:
            some = "; ".join(f"{token} took {seconds:.1f} s" for token, seconds in _some(self.late.items()))
            broken.append(f"{len(self.late)} sends after their deadline: {some}")
        if self.renamed:
            some = "; ".join(f"{token}: {', '.join(sorted(ids))}" for token, ids in _some(self.renamed.items()))
            broken.append(f"{len(self.renamed)} messages under several ids: {some}")
        assert not broken, "\n".join([*broken, "", str(self)])

    def __str__(self) -> str:
        rows: list[tuple[str, object]] = [
            ("sent", f"{self.outcomes['ok']} ok, {self.outcomes['error']} error, {self.outcomes['unknown']} unknown"),
            ("lost", len(self.lost)),
            ("run though not accepted", len(self.invented)),
            ("sent after the deadline", len(self.late)),
            ("run again", f"{sum(self.duplicates.values())} ({_by_receiver(self.duplicates) or 'none'})"),
            ("dead-lettered", _counted(self.dead) or "none"),
            ("finished by", _counted(self.workers) or "nobody"),
            *self.notes.items(),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join([f"  {self.title}", *(f"    {name:<{width}}  {value}" for name, value in rows)])


def _some(items: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    return list(items)[:NAMED]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _by_receiver(duplicates: Counter[tuple[str, str]]) -> str:
    counts: Counter[str] = Counter()
    for (_, receiver), count in duplicates.items():
        counts[receiver] += count
    return _counted(counts)
