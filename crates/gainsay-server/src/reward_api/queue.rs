//! Dynamic micro-batching: one thread scores; what arrives meanwhile is the next batch. A sample
//! carries the models that were in force when it came, and a batch is of one set of models.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use gainsay_core::engine::ScoreItem;
use tokio::sync::oneshot;

use super::item::Item;
use super::metrics::Metrics;
use super::state::{Engine, Limits, Member, SharedReward};

/// A sample's rewards: one a member, or why there are none.
pub(super) type Outcome = Result<Vec<f64>, Unscored>;

/// Why a sample has no reward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unscored {
    /// The sample is at fault.
    Sample(String),
    /// The server is.
    Server(String),
}

struct Job {
    engine: Arc<Engine>,
    item: Item,
    place: usize,
    reply: Arc<Reply>,
}

/// Where the outcomes of one request gather.
struct Reply {
    state: std::sync::Mutex<Gathered>,
}

struct Gathered {
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    done: Option<oneshot::Sender<Vec<Outcome>>>,
}

impl Reply {
    fn set(&self, place: usize, outcome: Outcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.outcomes[place] = Some(outcome);
        state.missing -= 1;
        if state.missing == 0
            && let Some(done) = state.done.take()
        {
            // A client that went away needs no answer.
            let _ = done.send(std::mem::take(&mut state.outcomes).into_iter().flatten().collect());
        }
    }

    /// Whether the client has gone away.
    fn is_moot(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// The way in.
#[derive(Clone)]
pub(super) struct Queue {
    sender: Sender<Job>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// Room in the queue for a request's samples; freed when dropped, unless they were put in.
pub(super) struct Room {
    waiting: Arc<AtomicUsize>,
    samples: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.samples, Ordering::SeqCst);
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many samples wait already.
    Full,
    /// More samples than the queue ever holds.
    TooMany,
    /// The scoring thread is gone.
    Gone,
}

impl Queue {
    pub fn start(limits: Limits, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = waiting.clone();
        let work = move || run(&receiver, limits, &metrics, &counter);
        std::thread::Builder::new().name("reward".into()).spawn(work)?;
        Ok(Self { sender, waiting, limit: limits.queue })
    }

    /// Samples that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Room for a request's samples, all or none.
    pub fn reserve(&self, samples: usize) -> Result<Room, Refused> {
        if samples > self.limit {
            return Err(Refused::TooMany);
        }
        let room = |now: usize| (now + samples <= self.limit).then_some(now + samples);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).map_err(|_| Refused::Full)?;
        Ok(Room { waiting: self.waiting.clone(), samples })
    }

    /// Puts a request's samples into the room that they have, to be scored by these models.
    pub async fn score(&self, mut room: Room, engine: &Arc<Engine>, items: Vec<Item>) -> Result<Vec<Outcome>, Refused> {
        let count = items.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let (done, answer) = oneshot::channel();
        let gathered = Gathered { outcomes: vec![None; count], missing: count, done: Some(done) };
        let reply = Arc::new(Reply { state: std::sync::Mutex::new(gathered) });
        for (place, item) in items.into_iter().enumerate() {
            let job = Job { engine: engine.clone(), item, place, reply: reply.clone() };
            self.sender.send(job).map_err(|_| Refused::Gone)?;
        }
        // From here on the scoring thread counts them off.
        room.samples = 0;
        answer.await.map_err(|_| Refused::Gone)
    }
}

/// The scoring thread: ends when every sender is gone.
fn run(receiver: &Receiver<Job>, limits: Limits, metrics: &Metrics, waiting: &AtomicUsize) {
    let mut held = VecDeque::new();
    while let Some(batch) = next_batch(receiver, &mut held, limits) {
        waiting.fetch_sub(batch.len(), Ordering::SeqCst);
        let (moot, batch): (Vec<Job>, Vec<Job>) = batch.into_iter().partition(|job| job.reply.is_moot());
        let left = || Err(Unscored::Server("the client went away".into()));
        moot.into_iter().for_each(|job| job.reply.set(job.place, left()));
        let Some(engine) = batch.first().map(|job| job.engine.clone()) else { continue };
        let started = Instant::now();
        let outcomes = score(&engine, &batch);
        metrics.batch(batch.len(), started.elapsed());
        for (job, outcome) in batch.into_iter().zip(outcomes) {
            job.reply.set(job.place, outcome);
        }
    }
}

/// What waits, at most a batch and of one set of models; waits for the first sample, and `gather` for company.
fn next_batch(receiver: &Receiver<Job>, held: &mut VecDeque<Job>, limits: Limits) -> Option<Vec<Job>> {
    if held.is_empty() {
        held.push_back(receiver.recv().ok()?);
    }
    let until = Instant::now() + limits.gather;
    while held.len() < limits.batch.max(1) {
        match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(job) => held.push_back(job),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    let first = held.front()?.engine.clone();
    let alike = held.iter().take(limits.batch.max(1)).take_while(|job| Arc::ptr_eq(&job.engine, &first)).count();
    Some(held.drain(..alike).collect())
}

/// The rewards of a batch: rendered samples and those in parts go to their own functions.
fn score(engine: &Engine, batch: &[Job]) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = vec![Ok(Vec::new()); batch.len()];
    type Pick = fn(&Member) -> &SharedReward;
    let kinds: [(bool, Pick); 2] = [(true, |m| &m.parts), (false, |m| &m.rendered)];
    for (parts, function) in kinds {
        let places: Vec<usize> = (0..batch.len()).filter(|&i| batch[i].item.is_parts() == parts).collect();
        if places.is_empty() {
            continue;
        }
        for member in &engine.members {
            let items: Vec<ScoreItem<'_>> = places.iter().map(|&i| batch[i].item.as_score_item()).collect();
            for (&place, reward) in places.iter().zip(rewards(function(member), &items)) {
                outcomes[place] = match (std::mem::replace(&mut outcomes[place], Ok(Vec::new())), reward) {
                    (Ok(mut so_far), Ok(reward)) => {
                        so_far.push(reward);
                        Ok(so_far)
                    }
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
            }
        }
    }
    outcomes
}

/// One function's rewards. Where the batch fails, each sample goes alone: a sample that cannot be
/// read must not fail its neighbors.
fn rewards(function: &SharedReward, items: &[ScoreItem<'_>]) -> Vec<Result<f64, Unscored>> {
    let attempt = |items: &[ScoreItem<'_>]| {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function.rewards(items)));
        let fault = |why: &str| Unscored::Server(why.to_owned());
        let rewards = outcome.map_err(|_| fault("the reward model failed; the server's log says more"))?;
        let rewards = rewards.map_err(|e| Unscored::Sample(e.to_string()))?;
        match rewards.len() == items.len() && rewards.iter().all(|r| r.is_finite()) {
            true => Ok(rewards),
            false => Err(fault("the reward model gives no finite number")),
        }
    };
    match attempt(items) {
        Ok(rewards) => rewards.into_iter().map(Ok).collect(),
        Err(error) if items.len() == 1 => vec![Err(error)],
        Err(_) => items.iter().map(|item| attempt(std::slice::from_ref(item)).map(|r| r[0])).collect(),
    }
}
