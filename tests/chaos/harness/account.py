"""The account: what became of every promise, from what the runs wrote down and what the clients were told."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from shared.ledger.states import FINAL_STATES, State
from tests.chaos.harness.clients import Answer
from tests.chaos.harness.facts import Facts
from tests.chaos.harness.rows import ANSWER_GOAL_S, RECOVERY_GOAL_S, Row
from tests.chaos.harness.stage import Stage

QUIET_S = 60.0  # when nothing has begun or ended for so long, what has not ended is stuck
WHOLE_WITHIN_S = 120.0  # a bound on hanging: a busy machine may take long to start a program again
Promised = dict[str, tuple[str, ...]]
_SHOWN = 5  # of each sort of miss
_WAITING_STATES = [state for state in State if state not in FINAL_STATES]


def settle(
    stage: Stage,
    injected: str,
    *,
    bound_s: float = 300,
    also_false: Callable[[Facts], Iterable[str]] = lambda _: (),
) -> Row:
    """Wait until everything has ended or nothing moves, and return what came of it. Nobody helps.

    `also_false` finds in the facts what else was promised and is not so.
    """
    promised, states = dict(stage.clients.accepted), _drained(stage, bound_s)
    by_hand = [*stage.by_hand, *_missing_parts(stage)]
    facts, clients, crashes = stage.facts(), stage.clients, stage.supervisor.crashes
    lost = _lost(stage, promised, states, facts)
    stuck = [job_id for job_id in promised if states.get(job_id) in _WAITING_STATES]
    after, beside = facts.run_after_success(), facts.side_by_side(stage.supervisor.waited_s)
    false_answers = [*_false_answers(stage, facts), *((1, what) for what in also_false(facts))]
    recovery_s, recovered = max(_recoveries(stage, facts), default=(0.0, ""))
    slowest = max(clients.answers, key=lambda answer: answer.own_s)
    notes = [
        *lost[:_SHOWN],
        *(f"job {job_id} is {states[job_id]}" for job_id in stuck[:_SHOWN]),
        *(f"no repetition of {label} was accepted" for label in clients.unanswered[:_SHOWN]),
        *(f"job {job_id} ran after success" for job_id in after[:_SHOWN]),
        *(f"job {job_id} ran side by side" for job_id in beside[:_SHOWN]),
        *crashes[:_SHOWN],
        *(f"{number} x {what}" for number, what in false_answers[:_SHOWN]),
        *by_hand,
    ]
    notes += [f"longest recovery: {recovered}"] if recovery_s > RECOVERY_GOAL_S else []
    notes += [f"slowest answer: {slowest}"] if slowest.own_s > ANSWER_GOAL_S else []
    return Row(
        injected=injected,
        jobs=len(promised),
        lost=len(lost),
        stuck=len(stuck) + len(clients.unanswered),
        after_success=len(after),
        side_by_side=len(beside),
        crashes=len(crashes),
        false_answers=sum(number for number, _ in false_answers),
        recovery_s=recovery_s,
        answer_s=slowest.own_s,
        by_hand=bool(by_hand),
        notes=notes,
    )


def _drained(stage: Stage, bound_s: float) -> dict[str, str]:
    """Wait until nothing is left to end, or nothing moves; return the state of every job."""
    give_up_at = time.monotonic() + bound_s
    seen, changed_at = None, time.monotonic()
    while time.monotonic() < min(give_up_at, changed_at + QUIET_S):
        waiting = stage.clients.states(only_some=True, state=_WAITING_STATES)
        if waiting == {}:
            break
        now = (stage.journal.stat().st_size if stage.journal.exists() else 0, waiting)
        if now != seen:
            seen, changed_at = now, time.monotonic()
        time.sleep(0.5)
    give_up_at = time.monotonic() + WHOLE_WITHIN_S
    while (states := stage.clients.states()) is None and time.monotonic() < give_up_at:
        time.sleep(0.5)
    return states or {}


def _missing_parts(stage: Stage) -> list[str]:
    """Return what of the service does not work again by itself: every program runs, every worker takes jobs."""
    try:
        stage.supervisor.wait_until_ready(bound_s=WHOLE_WITHIN_S)
    except AssertionError:
        return [f"{program.name} does not work" for program in stage.supervisor.programs if not program.is_ready]
    give_up_at = time.monotonic() + WHOLE_WITHIN_S
    began_at, idle = time.monotonic(), stage.workers
    while idle and time.monotonic() < give_up_at:
        stage.clients.submit_all([stage.job(lasts_s=0.5) for _ in range(4 * len(stage.workers))])
        _drained(stage, WHOLE_WITHIN_S)
        busy = {run.worker_pid for run in stage.facts().all_runs() if run.seen_at[0] >= began_at}
        idle = [worker for worker in stage.workers if worker.pid not in busy]
    return [f"{worker.name} runs and takes no job" for worker in idle]


def _lost(stage: Stage, promised: Promised, states: dict[str, str], facts: Facts) -> list[str]:
    """Return what was promised and not done: unknown jobs, those that did not succeed, successes without a run."""
    done = facts.labels("ended", "failed")
    found = []
    for job_id, labels in promised.items():
        state = states.get(job_id)
        if state is None:
            found.append(f"job {job_id} is not known")
        elif state in FINAL_STATES - {State.SUCCEEDED}:
            found.append(f"job {job_id} ended as {state}: {_why(stage, job_id)}")
        elif state == State.SUCCEEDED and not done.issuperset(labels):
            found.append(f"job {job_id} succeeded and did not run")
    return found


def _why(stage: Stage, job_id: str) -> str:
    answer = stage.clients.ask("GET", f"/jobs/{job_id}")
    error = answer.json().get("error") if answer is not None else None
    return f"{error['code']}: {error['message']}" if error else "no reason is given"


def _false_answers(stage: Stage, facts: Facts) -> Iterator[tuple[int, str]]:
    """Return how often what was said and was not so."""
    clients, ids = stage.clients, facts.job_ids()
    lies = {label: code for label, code in clients.denied.items() if label in ids}
    for code, number in Counter(lies.values()).items():
        yield number, f"{code} said that nothing was accepted, and it ran, first {next(iter(lies))}"
    promised = Counter(label for labels in clients.accepted.values() for label in labels)
    for label, number in promised.items():
        if (made := max(number, len(ids.get(label, ())))) > 1:
            yield 1, f"{label} was asked for once and became {made} jobs"
    wrong: dict[str, list[Answer]] = {}
    for answer in clients.answers:
        if not (_is_right(answer) or any(outage.excuses(answer) for outage in stage.outages)):
            wrong.setdefault(f"{answer.status} {answer.code}", []).append(answer)
    for what, answers in wrong.items():
        yield len(answers), f"{what} without a reason, first for {answers[0].request}"


def _is_right(answer: Answer) -> bool:
    """Return whether it needs no excuse. All requests are right; 409: the same one is under way."""
    return 200 <= answer.status < 400 or answer.status == 409


def _recoveries(stage: Stage, facts: Facts) -> Iterator[tuple[float, str]]:
    """Return how long each took, and what: of runs that were cut off, and of the service after each outage.

    What the program that did it waited for a CPU meanwhile is the machine's, not the service's.
    """

    def own_s(pid: int, since: float, until: float) -> float:
        return until - since - stage.supervisor.waited_s(pid, since, until)

    for job_id, cut_off_at, began_at, worker_pid in facts.recoveries():
        yield own_s(worker_pid, cut_off_at, began_at), f"of job {job_id}"
    for outage in stage.outages:
        if run := facts.first_begun_after(outage.ended_at):
            yield own_s(run.worker_pid, outage.ended_at, run.seen_at[0]), "the first run after an outage"
        later = [answer for answer in stage.clients.answers if answer.asked_at >= outage.ended_at]
        if accepted_at := [answer.asked_at + answer.took_s for answer in later if answer.status == 202]:
            took_s = own_s(stage.gateway.pid, outage.ended_at, min(accepted_at))
            yield took_s, "the first acceptance after an outage"
