//! A model of replicas, networks and stores: what is real in it is the rule of the store, the
//! clock of the store as a replica knows it, and its waiting calls. Seeded, so that a failure can
//! be made again.

use crate::model::{Mono, Utc};
use crate::store::tests::{Machine, StoreProcess};
use crate::store::{
    Asks, Heard, NextAsk, NoAnswer, Question, QuestionTerms, Said, StoreClock, StoreNow, Told,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

pub(super) const US: u64 = 1_000;
pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const BUDGET: Duration = Duration::from_millis(5);
pub(super) const MAX_DELAY: Duration = Duration::from_millis(50);

/// The true time at which a run begins, in nanoseconds.
pub(super) const BEGIN: u64 = 1_000 * SECOND;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mutation {
    None,
    /// The hold is 0, for the store and for the replicas.
    NoHold,
    /// And a replica is not silent when it hears of an epoch, nor after a jump.
    NoHoldNoSilence,
    /// The replica is not silent after a jump or a new epoch.
    NoSilence,
    /// Neither the store nor the replica looks at the deadline or at the store's clock.
    NoDeadline,
    /// An answer starts calls however late it comes.
    LateAnswers,
    /// None, but half of the gates have the shortest `max_delay` and half the longest.
    MixedDelays,
    /// And each holds, and is silent, for its own.
    MixedDelaysOwnHolds,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The process is frozen; what was asked is answered afterwards.
    StoreStall(u64),
    /// The replica is frozen.
    ReplicaStall(usize, u64),
    /// The keys are gone.
    FlushAll,
    /// The library is loaded anew.
    FunctionFlush,
    /// The process starts anew and empty; it is away for so long.
    Restart(u64),
    /// A standby is promoted. The old primary serves those who still ask it for so long.
    FailOver {
        old_serves: u64,
        wall_us: i64,
        keeps_keys: bool,
    },
    /// The store's wall clock is set, by microseconds.
    Jump(i64),
    /// The store's wall clock runs fast or slow, in parts per million, for so long.
    Slew(i64, u64),
    /// The replica's machine is paused and its monotonic clock with it. What was asked is lost.
    Pause(usize, u64),
    /// Nothing passes between a replica and the store.
    Cut(usize, u64),
    /// The way takes up to so much longer.
    Slow(u64, u64),
    /// The replica's process starts anew.
    ReplicaRestart(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Load {
    /// So many times the quota, spread by chance.
    Flood(u64),
    /// Exactly the quota, within 10 ms of the even pace, one replica after the other.
    Paced,
    /// All calls of a second at once, each second, one replica after the other.
    Bursts,
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub seed: u64,
    pub replicas: usize,
    /// The quotas in force, from that second of the run on, by the store's clock.
    pub quotas: Vec<(u64, u32)>,
    pub load: Load,
    pub length: u64,
    pub hold: u64,
    pub faults: Vec<(u64, Fault)>,
    pub mutation: Mutation,
}

enum Event {
    Arrive(usize, u64),
    Wake(usize),
    Beat(usize, u32),
    Executed(usize),
    Answered(usize, Option<Said>),
    TimedOut(usize),
    Switch(usize),
    Fault(Fault),
    SlewEnds(i64),
}

struct Store {
    process: StoreProcess,
    /// (true time, wall clock there, parts per million on top from there on).
    wall: (u64, i64, i64),
    frozen_until: u64,
    serves_until: u64,
    lives: u32,
}

struct Replica {
    clock: StoreClock,
    asks: Asks<u64>,
    store: usize,
    mono: (u64, i64),
    frozen_until: u64,
    cut_until: u64,
    lives: u32,
}

struct Sent {
    replica: usize,
    replica_life: u32,
    store: usize,
    store_life: u32,
    question: Question,
    terms: QuestionTerms,
    sent: Mono,
    open: bool,
    is_lost: bool,
}

/// What a run has shown.
#[derive(Default, Debug)]
pub(super) struct Outcome {
    /// (epoch, start, quota) of all that the stores granted.
    pub starts: Vec<(i64, u64, u32)>,
    /// (true time, quota) of all that left.
    pub releases: Vec<(u64, u32)>,
    pub throttled: u64,
    pub unavailable: u64,
    pub questions: u64,
    /// Starts before the store's clock was there.
    pub too_early: u64,
    /// When calls waited longest for a start, in nanoseconds.
    pub longest_wait: u64,
}

pub(super) struct World {
    scenario: Scenario,
    random: fastrand::Rng,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    stores: Vec<Store>,
    replicas: Vec<Replica>,
    sent: Vec<Sent>,
    slow: (u64, u64),
    outcome: Outcome,
}

impl World {
    pub(super) fn run(scenario: Scenario) -> Outcome {
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        let store = Store::new(&mut random, BEGIN, 1_800_000_000_000_000);
        let mut world = Self {
            random,
            now: BEGIN,
            order: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            stores: vec![store],
            replicas: Vec::new(),
            sent: Vec::new(),
            slow: (0, 0),
            outcome: Outcome::default(),
            scenario,
        };
        for nth in 0..world.scenario.replicas {
            let mono = (
                world.random.u64(0..1_000_000 * SECOND),
                world.random.i64(-50..=50),
            );
            let (clock, asks) = world.process_of_a_replica(nth);
            world.replicas.push(Replica {
                clock,
                asks,
                store: 0,
                mono,
                frozen_until: 0,
                cut_until: 0,
                lives: 0,
            });
            let first = BEGIN + world.random.u64(0..20 * MS);
            world.at(first, Event::Beat(nth, 0));
        }
        world.plan_arrivals();
        for (at, fault) in world.scenario.faults.clone() {
            world.at(BEGIN + at, Event::Fault(fault));
        }
        while let Some(Reverse((at, _, event))) = world.queue.pop() {
            if at > BEGIN + world.scenario.length {
                break;
            }
            world.now = at;
            let event = world.events[event].take().unwrap();
            world.happen(event);
        }
        world.outcome
    }

    fn max_delay(&self, replica: usize) -> Duration {
        match self.scenario.mutation {
            Mutation::MixedDelays | Mutation::MixedDelaysOwnHolds => {
                Duration::from_millis([1, 200][replica % 2])
            }
            _ => MAX_DELAY,
        }
    }

    /// What a replica that reckons with its own settings tells the store to hold for.
    fn own_hold(&self, replica: usize) -> Duration {
        Duration::from_secs(1) + self.max_delay(replica) + BUDGET + BUDGET
    }

    fn process_of_a_replica(&self, replica: usize) -> (StoreClock, Asks<u64>) {
        let max_delay = self.max_delay(replica);
        let budget = match self.scenario.mutation {
            Mutation::NoDeadline | Mutation::LateAnswers => Duration::from_secs(3_600),
            _ => BUDGET,
        };
        let hold = match self.scenario.mutation {
            Mutation::NoHold | Mutation::NoHoldNoSilence | Mutation::NoSilence => 0,
            Mutation::MixedDelaysOwnHolds => 0,
            _ => self.scenario.hold,
        };
        let mut clock = StoreClock::new(budget, max_delay, Duration::from_nanos(hold));
        clock.silence = match self.scenario.mutation {
            Mutation::NoHoldNoSilence | Mutation::NoSilence => Duration::ZERO,
            Mutation::NoDeadline | Mutation::LateAnswers => Duration::from_millis(1_215),
            Mutation::MixedDelaysOwnHolds => self.own_hold(replica),
            _ => clock.silence,
        };
        (clock, Asks::new(max_delay))
    }

    /// Arrivals begin when every replica has its first anchor for long enough.
    fn plan_arrivals(&mut self) {
        let (from, to) = (
            BEGIN + self.scenario.hold + 400 * MS,
            BEGIN + self.scenario.length - 200 * MS,
        );
        let quota = u64::from(self.scenario.quotas[0].1);
        let replicas = self.scenario.replicas;
        let mut nth = 0_usize;
        let mut at = from;
        while at < to {
            match self.scenario.load {
                Load::Flood(times) => {
                    let replica = self.random.usize(0..replicas);
                    self.at(at, Event::Arrive(replica, at));
                    at += self.random.u64(0..2 * SECOND / (quota * times));
                }
                Load::Paced => {
                    let early = self.random.u64(0..=20 * MS);
                    self.at(at + early, Event::Arrive(nth % replicas, at + early));
                    nth += 1;
                    at = from + nth as u64 * SECOND / quota;
                }
                Load::Bursts => {
                    let late = self.random.u64(0..=20 * MS);
                    for _ in 0..quota {
                        self.at(at + late, Event::Arrive(nth % replicas, at + late));
                        nth += 1;
                    }
                    at += SECOND;
                }
            }
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue
            .push(Reverse((at, self.order, self.events.len())));
        self.events.push(Some(event));
    }

    fn happen(&mut self, event: Event) {
        let replica = match &event {
            Event::Arrive(replica, _) | Event::Wake(replica) | Event::Beat(replica, _) => *replica,
            Event::Switch(replica) => *replica,
            Event::Answered(sent, _) | Event::TimedOut(sent) => self.sent[*sent].replica,
            Event::Executed(sent) => return self.execute(*sent),
            Event::SlewEnds(_) | Event::Fault(_) => usize::MAX,
        };
        if let Some(frozen) = self.replicas.get(replica)
            && frozen.frozen_until > self.now
        {
            let wakes = frozen.frozen_until + self.random.u64(0..100 * US);
            return self.at(wakes, event);
        }
        match event {
            Event::Arrive(replica, came) => self.arrive(replica, came),
            Event::Wake(replica) => self.pump(replica),
            Event::Beat(replica, life) => self.beat(replica, life),
            Event::Executed(_) => {}
            Event::Answered(sent, said) => self.answered(sent, said),
            Event::TimedOut(sent) => self.timed_out(sent),
            Event::Switch(replica) => {
                self.replicas[replica].store = self.stores.len() - 1;
                self.touch(replica);
            }
            Event::Fault(fault) => self.fault(fault),
            Event::SlewEnds(ppm) => {
                let store = self.stores.last_mut().unwrap();
                if store.wall.2 == ppm {
                    store.turn_wall(self.now, 0, 0);
                }
            }
        }
    }

    fn arrive(&mut self, replica: usize, came: u64) {
        let mono = self.mono(replica);
        let utc = self.replicas[replica].clock.now_utc(mono);
        let quota = self.quota_at(utc);
        match self.replicas[replica].asks.arrive(mono, quota, came) {
            Ok(()) => self.pump(replica),
            Err(told) => self.told(replica, quota, vec![told]),
        }
    }

    fn quota_at(&self, utc: Option<StoreNow>) -> u32 {
        let second = utc.map_or(0, |now| now.utc.since(Utc(1_800_000_000_000_000)).as_secs());
        let quotas = self.scenario.quotas.iter().rev();
        let mut in_force = quotas.filter(|(from, _)| *from <= second);
        in_force.next().unwrap_or(&self.scenario.quotas[0]).1
    }

    fn pump(&mut self, replica: usize) {
        loop {
            let mono = self.mono(replica);
            let (next, gone) = self.replicas[replica].asks.next(mono);
            self.told(replica, 0, gone);
            match next {
                NextAsk::Idle => return,
                NextAsk::Wait(until) => {
                    let at = self.true_time(replica, until).max(self.now) + US;
                    return self.at(at, Event::Wake(replica));
                }
                NextAsk::Ask { n, quota } => match self.replicas[replica].clock.ask(mono) {
                    Ok(terms) => return self.send(replica, n, quota, terms),
                    Err(silent) => {
                        let silent = Heard::Silent(silent);
                        let told = self.replicas[replica].asks.answered(mono, silent);
                        self.told(replica, 0, told);
                    }
                },
            }
        }
    }

    fn beat(&mut self, replica: usize, life: u32) {
        if self.replicas[replica].lives == life {
            self.touch(replica);
            self.at(self.now + 100 * MS, Event::Beat(replica, life));
        }
    }

    fn touch(&mut self, replica: usize) {
        let terms = self.replicas[replica].clock.touch(self.mono(replica));
        self.send(replica, 0, 1, terms);
    }

    fn send(&mut self, replica: usize, n: u16, quota: u32, terms: QuestionTerms) {
        let (sent, from) = (self.mono(replica), &self.replicas[replica]);
        let id = self.sent.len();
        let (cut, store) = (from.cut_until > self.now, from.store);
        let max_delay = self.max_delay(replica);
        self.sent.push(Sent {
            replica,
            replica_life: from.lives,
            store,
            store_life: self.stores[store].lives,
            question: Question {
                limiter: "x".into(),
                quota,
                n,
                max_delay,
            },
            terms,
            sent,
            open: true,
            is_lost: false,
        });
        if !cut {
            let arrives = self.now + self.way();
            self.at(arrives, Event::Executed(id));
        }
        let gives_up = match self.scenario.mutation {
            Mutation::LateAnswers => 5 * SECOND,
            _ => 5 * MS + self.random.u64(0..MS),
        };
        self.at(self.now + gives_up, Event::TimedOut(id));
    }

    fn way(&mut self) -> u64 {
        let (until, longer) = self.slow;
        let usual = self.random.u64(30 * US..300 * US);
        match self.now < until && self.random.bool() {
            true => usual + self.random.u64(0..longer),
            false => usual,
        }
    }

    fn execute(&mut self, id: usize) {
        let sent = &self.sent[id];
        let store = &self.stores[sent.store];
        if store.frozen_until > self.now {
            let wakes = store.frozen_until + self.random.u64(0..50 * US);
            return self.at(wakes, Event::Executed(id));
        }
        // A connection does not outlive the process, and a primary without a standby refuses.
        let refused = store.lives != sent.store_life || store.serves_until <= self.now;
        let mut said = None;
        if !refused {
            store.process.machine.wall_us.set(store.wall_at(self.now));
            let mut terms = sent.terms;
            if self.scenario.mutation == Mutation::NoDeadline {
                terms.deadline = Utc(9_000_000_000_000_000);
            }
            let hold = match self.scenario.mutation {
                Mutation::NoHold | Mutation::NoHoldNoSilence => 0,
                Mutation::MixedDelaysOwnHolds => self.own_hold(sent.replica).as_micros() as u64,
                _ => self.scenario.hold / US,
            };
            let hold = i64::try_from(hold).unwrap();
            let answer = store.process.ask(&sent.question, terms, hold);
            if let Said::Granted {
                epoch,
                now,
                offsets,
                ..
            } = &answer
            {
                for offset in offsets {
                    let start = u64::try_from(now.plus(*offset).0).unwrap();
                    let quota = sent.question.quota;
                    self.outcome.starts.push((*epoch, start, quota));
                }
            }
            said = Some(answer);
        }
        self.outcome.questions += 1;
        if self.replicas[sent.replica].cut_until <= self.now && !sent.is_lost {
            let arrives = self.now + self.way();
            self.at(arrives, Event::Answered(id, said));
        }
    }

    fn answered(&mut self, id: usize, said: Option<Said>) {
        let sent = &mut self.sent[id];
        if sent.is_lost {
            return;
        }
        let (replica, quota, n) = (sent.replica, sent.question.quota, sent.question.n);
        let was_open = std::mem::replace(&mut sent.open, false);
        let (sent_at, life) = (sent.sent, sent.replica_life);
        if self.replicas[replica].lives != life {
            return;
        }
        let mono = self.mono(replica);
        let heard = match &said {
            Some(said) => self.replicas[replica].clock.heard(sent_at, mono, said),
            None => Heard::AskAgain(NoAnswer::Unanswered),
        };
        if said.is_none() && self.replicas[replica].store != self.stores.len() - 1 {
            // The primary is asked for again.
            self.at(self.now + 20 * MS, Event::Switch(replica));
        }
        if was_open && n > 0 {
            let told = self.replicas[replica].asks.answered(mono, heard);
            self.told(replica, quota, told);
            self.pump(replica);
        }
    }

    fn timed_out(&mut self, id: usize) {
        let sent = &mut self.sent[id];
        let was_open = std::mem::replace(&mut sent.open, false);
        let (replica, n, life) = (sent.replica, sent.question.n, sent.replica_life);
        if was_open && n > 0 && self.replicas[replica].lives == life {
            let mono = self.mono(replica);
            let heard = Heard::AskAgain(NoAnswer::Unanswered);
            let told = self.replicas[replica].asks.answered(mono, heard);
            self.told(replica, 0, told);
            self.pump(replica);
        }
    }

    fn told(&mut self, replica: usize, quota: u32, told: Vec<(u64, Told)>) {
        for (came, told) in told {
            match told {
                Told::Throttled(_) => self.outcome.throttled += 1,
                Told::Unavailable => self.outcome.unavailable += 1,
                Told::Start(grant, _) => {
                    let at = self.true_time(replica, grant.release);
                    self.outcome.releases.push((at, quota));
                    let store = &self.stores[self.replicas[replica].store];
                    let early = grant.start.at.0 - store.wall_at(at);
                    self.outcome.too_early += u64::from(early > 3);
                    let waited = at.saturating_sub(came);
                    self.outcome.longest_wait = self.outcome.longest_wait.max(waited);
                }
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        let now = self.now;
        let newest = self.stores.len() - 1;
        let store = &mut self.stores[newest];
        match fault {
            Fault::StoreStall(lasts) => store.frozen_until = now + lasts,
            Fault::ReplicaStall(replica, lasts) => {
                self.replicas[replica].frozen_until = now + lasts;
            }
            Fault::FlushAll => store.process.machine.flush_all(),
            Fault::FunctionFlush => store.process = StoreProcess::load(&store.process.machine),
            Fault::Restart(away) => {
                store.process.machine.flush_all();
                store.process = StoreProcess::load(&store.process.machine);
                store.frozen_until = now + away;
                store.lives += 1;
                for replica in 0..self.replicas.len() {
                    let connects = now + away + self.random.u64(MS..250 * MS);
                    self.at(connects, Event::Switch(replica));
                }
            }
            Fault::FailOver {
                old_serves,
                wall_us,
                keeps_keys,
            } => {
                store.serves_until = now + old_serves;
                let wall = store.wall_at(now) + wall_us;
                let new = Store::new(&mut self.random, now, wall);
                if keeps_keys {
                    let old = &self.stores[newest].process.machine;
                    new.process.machine.copy_keys(old);
                }
                self.stores.push(new);
                for replica in 0..self.replicas.len() {
                    let hears = now + self.random.u64(50 * MS..3_500 * MS);
                    self.at(hears, Event::Switch(replica));
                }
            }
            Fault::Jump(by_us) => store.turn_wall(now, by_us, store.wall.2),
            Fault::Slew(ppm, lasts) => {
                store.turn_wall(now, 0, ppm);
                self.at(now + lasts, Event::SlewEnds(ppm));
            }
            Fault::Cut(replica, lasts) => self.replicas[replica].cut_until = now + lasts,
            Fault::Pause(replica, lasts) => {
                let paused = &mut self.replicas[replica];
                paused.frozen_until = now + lasts;
                paused.mono.0 -= lasts;
                for sent in &mut self.sent {
                    sent.is_lost |= sent.replica == replica && sent.open;
                }
            }
            Fault::Slow(lasts, longer) => self.slow = (now + lasts, longer),
            Fault::ReplicaRestart(replica) => {
                let (clock, asks) = self.process_of_a_replica(replica);
                let replica_state = &mut self.replicas[replica];
                (replica_state.clock, replica_state.asks) = (clock, asks);
                replica_state.lives += 1;
                let life = replica_state.lives;
                self.at(now + 10 * MS, Event::Beat(replica, life));
            }
        }
    }

    /// The monotonic clock of a replica's machine now.
    fn mono(&self, replica: usize) -> Mono {
        let (offset, ppm) = self.replicas[replica].mono;
        let run = i64::try_from(self.now - BEGIN).unwrap();
        let run = run + run * ppm / 1_000_000;
        Mono(offset + u64::try_from(run).unwrap())
    }

    /// The true time of an instant of it.
    fn true_time(&self, replica: usize, at: Mono) -> u64 {
        let (offset, ppm) = self.replicas[replica].mono;
        let run = i64::try_from(at.0.saturating_sub(offset)).unwrap_or(i64::MAX / 4);
        BEGIN + u64::try_from(run - run / 1_000_000 * ppm).unwrap()
    }
}

impl Store {
    fn new(random: &mut fastrand::Rng, now: u64, wall_us: i64) -> Self {
        let machine = Rc::new(Machine::default());
        Self {
            process: StoreProcess::load(&machine),
            wall: (now, wall_us, random.i64(-50..=50)),
            frozen_until: 0,
            serves_until: u64::MAX,
            lives: 0,
        }
    }

    fn wall_at(&self, now: u64) -> i64 {
        let (since, wall_us, ppm) = self.wall;
        let run = i64::try_from(now).unwrap() - i64::try_from(since).unwrap();
        let run_us = i128::from(run) * i128::from(1_000_000 + ppm) / 1_000_000_000;
        wall_us + i64::try_from(run_us).unwrap()
    }

    fn turn_wall(&mut self, now: u64, by_us: i64, ppm: i64) {
        self.wall = (now, self.wall_at(now) + by_us, ppm);
    }
}
