"""The list of deliberate bugs. Each was a real possibility while the relay was written."""

from __future__ import annotations

from outboxd.kafka.transactional.handover import Handover
from outboxd.kafka.transactional.transaction_client import TransactionClient
from outboxd.kafka.transactional.transaction_recovery import Recovery
from outboxd.kafka.transactional.transactional_producer import TransactionalProducer
from outboxd.kafka.transactional.verdicts import Pieces
from outboxd.policy.blame import verdicts
from outboxd.policy.fetch.gaps import Gaps
from outboxd.policy.keys.deferrals import Deferrals
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.keys.key_queues import KeyQueues
from outboxd.policy.keys.key_states import KeyStates
from outboxd.policy.lease_watch import LeaseWatch
from outboxd.policy.topics.breakers import Breakers, StormGuard
from outboxd.policy.topics.partition_holds import PartitionHolds
from outboxd.policy.topics.topic_holds import TopicHolds
from outboxd.relay.admit.admission import Admission
from outboxd.relay.admit.probing import Probing
from outboxd.relay.admit.wishes import Wishes
from outboxd.relay.fetch.loading import Loading
from outboxd.relay.fetch.orders import Orders
from outboxd.relay.fetch.recovering import Recovering
from outboxd.relay.fetch.sweeping import Sweeping
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.lanes import Lanes
from outboxd.relay.memory.ledger import Ledger
from outboxd.relay.memory.refusals import Refusals
from outboxd.relay.memory.settling import Settling
from outboxd.relay.ownership import Ownership
from outboxd.relay.publish.careful import CarefulPublisher
from outboxd.relay.publish.careful_transactions import CarefulTransactions
from outboxd.relay.publish.publishing import Publishing
from outboxd.relay.relay import Relay
from outboxd.relay.report.aftermath import Aftermath
from outboxd.relay.report.holding import Holding
from outboxd.relay.settle.writing import Writing
from tests.simulation.mutations.chain_bugs import CHAIN_BUGS
from tests.simulation.mutations.patching import Mutation
from tests.simulation.scenario import Scenario
from tests.simulation.store import SimulatedStore


def _exactly_once(scenario: Scenario) -> bool:
    return scenario.exactly_once


def _not_exactly_once(scenario: Scenario) -> bool:
    return not scenario.exactly_once


def _careful(scenario: Scenario) -> bool:
    return scenario.is_careful and not scenario.exactly_once and scenario.killers > 0


def _careful_and_lossy(scenario: Scenario) -> bool:
    return scenario.is_careful and "lossy.a" in scenario.topics


def _careful_transactions(scenario: Scenario) -> bool:
    return scenario.is_careful and scenario.exactly_once and scenario.killers > 0


def _changed(scenario: Scenario) -> bool:
    return scenario.has_changes and not scenario.exactly_once


def _stalled(scenario: Scenario) -> bool:
    return scenario.has_stalls


BUGS = [
    Mutation(
        "a stuck partition goes on, and what was dropped of it meanwhile is not read again first",
        PartitionHolds,
        "release",
        "self._topics.defer(topic, min(from_ids))",
        "pass",
        first_seed=28,
        where=_not_exactly_once,
    ),
    Mutation(
        "what a transaction gave back goes behind newer records that wait",
        Publishing,
        "_go_next",
        "if state.pipelined and following and state.has_ready:",
        "if False:",
        first_seed=60,
        where=_exactly_once,
    ),
    Mutation(
        "what a transaction sent back is read again behind what was admitted after it",
        Aftermath,
        "readmit",
        "self._gate.put_behind(record)",
        "self._gate.admit([record])",
        first_seed=1_290,
        where=_exactly_once,
    ),
    Mutation(
        "a replay is taken while an earlier one of its key was not listed",
        Orders,
        "on_told",
        "if replay.is_behind:",
        "if False:",
        first_seed=28,
    ),
    Mutation(
        "a key is read again before what was admitted of it left memory",
        Relay,
        "_relay",
        "ownership.publishing.take_back(now)\n    if not ownership.stale_reads:",
        "if not ownership.stale_reads:",
        first_seed=95,
        where=_exactly_once,
    ),
    Mutation(
        "settle before the report",
        Publishing,
        "publish",
        "state.lanes.published(published)\n",
        "state.lanes.published(published)\n    state.aftermath.deliveries.unconfirmed(published, (), 0.0)\n",
    ),
    Mutation(
        "the key of a failed record is not held",
        HeldRecords,
        "add",
        "self._gate.hold(held.gate_key, held.id)",
        "self._gate.release(held.gate_key, held.id)",
    ),
    Mutation("no look-back", Wishes, "request", "lows, highs = self.gaps.ranges()", "lows, highs = [], []"),
    Mutation("gaps close without the fence", Gaps, "_closes", "if gap.fence is None:", "return True\n    if False:"),
    Mutation(
        "a cut look-back counts as whole",
        Admission,
        "_note_look_back",
        "complete_to = found[-1] if found and cut_arm == Arm.LOOK_BACK else None",
        "complete_to = None",
        first_seed=129,
    ),
    Mutation(
        "the token is not checked",
        SimulatedStore,
        "begin_settle",
        "if moved or lease.token != token or lease.holder != holder:",
        "if False:",
    ),
    Mutation(
        "the lease's end is not watched",
        Relay,
        "turn",
        "now >= self._ports.lease.trusted_until()",
        "False",
        first_seed=325,
    ),
    Mutation(
        "attempts count in an outage",
        verdicts,
        "_own_or_hold",
        "if fault.of_one_partition or not around.neighbours_delivered:",
        "if False:",
        first_seed=115,
    ),
    Mutation(
        "a late record goes to the end of its key's queue",
        KeyQueues,
        "wait",
        "bisect.insort(queue, record, lo=1, key=id_of)",
        "queue.append(record)",
        first_seed=545,
    ),
    Mutation(
        "the whole batch is blamed", verdicts, "_permanent", "if fault.batch_wide and not around.alone:", "if False:"
    ),
    Mutation("a cut reread counts as whole", Deferrals, "answered", "if complete_to is None:", "if True:"),
    Mutation(
        "deferrals of keys are forgotten",
        KeyStates,
        "defer",
        "self.deferrals.defer(gate_key, record.id)",
        "pass",
    ),
    Mutation(
        "deferrals of topics are forgotten",
        TopicHolds,
        "split",
        "self.defer(topic, record.id)",
        "pass",
    ),
    Mutation("breakers never close", Holding, "close_breaker", "breaker = self._lanes.breakers.close(topic)", "return"),
    Mutation(
        "the key goes on before the death is written",
        Aftermath,
        "_die",
        "self._observer.died(",
        "self._gate.release(self._gate.key_of(record) or ('', ''), record.id)\n    self._observer.died(",
    ),
    Mutation(
        "unknown outcomes are dropped with their producer",
        Publishing,
        "_rebuild",
        "unsettled + state.ready[state.ready_at :]",
        "state.ready[state.ready_at :]",
        first_seed=150,
    ),
    Mutation("suspects are forgotten", Aftermath, "_apply", "self.suspects.append(record)", "pass"),
    Mutation(
        "a settlement whose answer is lost is dropped",
        Writing,
        "on_failed",
        "state.settling.failed(replace(event.settlement, again=True))",
        "state.settling.done()",
        first_seed=25,
    ),
    Mutation(
        "what the owner before held is not loaded",
        Loading,
        "on_loaded",
        "for holder in loaded.holders:",
        "for holder in ():",
    ),
    Mutation("dead letters never hold their keys", Writing, "_on_death_written", "if death.holds_key:", "if False:"),
    Mutation("pauses are overlooked", Lanes, "pause", "if list(pauses) == list(self.pauses):", "if True:"),
    Mutation(
        "no storm guard",
        StormGuard,
        "failed_for_good",
        "return len(storm.keys) >= self._keys_max or (storm.rows >= self._rows_max and len(storm.keys) > 1)",
        "return False",
        first_seed=235,
    ),
    Mutation("no sweep", Sweeping, "sweep", "if now < self.next_at:", "if True:", first_seed=72),
    Mutation(
        "a discard that was committed late is overlooked",
        Orders,
        "on_holding",
        "if not is_held and held.since <= asked_at:",
        "if False:",
    ),
    Mutation(
        "a key is let go since its record died after the dead letters were listed",
        Orders,
        "on_holding",
        "if not is_held and held.since <= asked_at:",
        "if not is_held:",
        first_seed=53,
    ),
    Mutation(
        "a replay is sent again while its delivery is not written yet",
        Orders,
        "_on_replay",
        "if state.ledger.knows(replay.outbox_id):",
        "if False:",
        first_seed=500,
    ),
    Mutation("replays are overlooked", Orders, "on_told", "for replay in fetched.replays:", "for replay in ():"),
    Mutation(
        "what left memory during a fetch is taken for new",
        Ledger,
        "unknown",
        "known, left = self.records, self._left()",
        "known, left = self.records, set()",
        first_seed=1_010,
    ),
    Mutation(
        "no probe is an untried record",
        Probing,
        "_choose",
        "if from_id is None or not breaker.wants_untried or now >= breaker.turn_ends_at:",
        "if True:",
    ),
    Mutation("nothing bounds memory", Ledger, "rows_free", "self.rows_max + self._rows_beside", "10**6"),
    Mutation("retries are never written", Settling, "_next", "retries=_take_items(self._retries, count)", "retries=()"),
    Mutation("a probe's end is overlooked", Breakers, "probe_ended", "breaker.probing_id = None", "pass"),
    Mutation(
        "a probe that goes back behind a held record is waited for for ever",
        Aftermath,
        "readmit",
        "self._lanes.breakers.probe_ended(record.topic, record.id, now)",
        "pass",
        first_seed=75,
        where=_exactly_once,
    ),
    Mutation(
        "what was deferred between two held records is overtaken by the second",
        KeyGate,
        "_admit_held",
        "self.keys.free(gate_key)",
        "if gate_key not in self.held: self.keys.free(gate_key)",
        where=_exactly_once,
        first_seed=6_070,
    ),
    Mutation(
        "a failover is overlooked",
        SimulatedStore,
        "_proof",
        "self._daemon.lease.server",
        "self._db.server",
        first_seed=340,
        where=lambda scenario: scenario.fails_over,
    ),
    Mutation(
        "the one transaction that states a refused row again is settled while the row is not",
        Refusals,
        "restated",
        "transaction - 1",
        "transaction",
        where=_exactly_once,
        first_seed=2990,
    ),
    Mutation(
        "a row that was delivered before and is refused is read as pending",
        Writing,
        "_on_refused",
        "keep_from_reading(state, event.settlement)",
        "pass",
        where=_exactly_once,
        first_seed=270,
    ),
    Mutation(
        "a record of another event is settled by its id",
        Recovering,
        "_on_recovered",
        "settling.pieces.append(row.event_piece)",
        "settling.pieces.append(None)",
        first_seed=780,
        where=lambda scenario: scenario.fails_over and scenario.exactly_once,
    ),
    Mutation(
        "the lease of an owner that died is kept by a clock that was ahead",
        LeaseWatch,
        "is_over",
        "if duration_seconds is None:",
        "if True:",
        first_seed=880,
        where=lambda scenario: scenario.clock_jumps,
    ),
    Mutation(
        "retries wait for a clock that was set back",
        HeldRecords,
        "want_overdue",
        "for record_id in overdue:",
        "for record_id in ():",
        where=lambda scenario: scenario.clock_jumps,
        first_seed=880,
    ),
    Mutation(
        "no progress record",
        TransactionClient,
        "transact",
        "producer.client.produce(self.topic, value, progress_key(number), partition=0)",
        "pass",
        where=_exactly_once,
    ),
    Mutation(
        "the progress records are not read",
        Recovery,
        "recover",
        "records = self._clients.read_above(settled, lineage)",
        "records = []",
        where=_exactly_once,
    ),
    Mutation(
        "what a transaction committed is told once more at the end of its batch",
        Pieces,
        "take_standing",
        "committed, self.committed = self.committed, []",
        "committed = self.committed",
        first_seed=550,
        where=_exactly_once,
    ),
    Mutation(
        "rows are settled without their transaction's commit",
        TransactionalProducer,
        "commit",
        "self._call(self.client.commit_transaction)",
        "pass",
        where=_exactly_once,
    ),
    Mutation(
        "rows are read before what was recovered is settled",
        Recovering,
        "take",
        "if self._loaded is None:",
        "self._recovered, self._loaded = True, None\n    if False:",
        where=_exactly_once,
    ),
    Mutation(
        "the records behind a failed one of their key go all the same",
        Aftermath,
        "readmit",
        "if is_serial_probe or not self._gate.is_behind(record):",
        "if True:",
        where=_exactly_once,
    ),
    Mutation(
        "what was offered and not taken goes behind what had no room",
        Publishing,
        "_reconsider",
        "records[: self._offered] + state.unconfirmed + records[self._offered :]",
        "state.unconfirmed + records",
        where=_careful_and_lossy,
    ),
    Mutation(
        "a suspect of a crash is sent by the daemon itself",
        CarefulPublisher,
        "_send",
        "if record.id in self._suspects:",
        "if False:",
        where=_careful,
    ),
    Mutation(
        "a window goes before it is written down",
        CarefulPublisher,
        "_send",
        "or not self._journal.is_written()",
        "",
        where=_careful,
    ),
    Mutation(
        "with the next window, suspects that were not cleared are not written down",
        CarefulPublisher,
        "_record",
        "[*self._in_air, *ids], self._still_suspected()",
        "[*self._in_air, *ids], set()",
        where=_careful,
    ),
    Mutation(
        "a row whose death is not written yet is no suspect any more",
        CarefulPublisher,
        "take_reports",
        "self._tell_found(report)",
        "self._suspects.discard(report.record.id)",
        first_seed=6_000,
        where=_careful,
    ),
    Mutation(
        "suspicion ends with care",
        CarefulPublisher,
        "_consider_end",
        "self._is_careful = False",
        "self._is_careful = False; self._suspects.clear()",
        first_seed=310,
        where=_careful,
    ),
    Mutation(
        "what a session of suspects committed is not read before the relay goes on",
        CarefulTransactions,
        "failure",
        "if self._session_ended is not None:",
        "if self._session_ended is not None and self._condemned:",
        where=_careful_transactions,
    ),
    Mutation(
        "all suspects of a group that kills are to blame",
        CarefulTransactions,
        "_tried",
        "if len(group) > 1 and _is_death(reports[0]):",
        "if False:",
        where=_careful_transactions,
    ),
    Mutation(
        "the next batch begins before the relay has heard of what failed in the one before",
        Handover,
        "_deliver",
        "if not self._failures:",
        "if True:",
        where=_exactly_once,
    ),
    Mutation(
        "a topic that was made again gets no other producer",
        Ownership,
        "renew_producer",
        "if self._is_draining:",
        "if True:",
        where=_changed,
    ),
    Mutation(
        "answers that came to an ownership before are taken for this one's",
        Relay,
        "_take_answer",
        "if ownership.stale_reads:",
        "if False:",
        where=_stalled,
    ),
    *CHAIN_BUGS,
]
