//! One target on several threads, watched for panics, inputs that do not end, and memory.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fuzz::files::{self, Folder};
use fuzz::guard::{self, Broken};
use fuzz::mutate::Mutator;
use fuzz::seeds;
use fuzz::targets::Target;
use procfs::WithCurrentSystemInfo;

/// How often the threads are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often progress is shown.
const SHOW: Duration = Duration::from_secs(5);
/// CPU time one input may take. Not time on the clock: other processes may have the machine.
const INPUT_MAX_S: f64 = 1.0;
/// Findings of one place that are saved.
const SAVED_MAX: u64 = 3;

/// What a run is told.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) inputs: u64,
    pub(crate) seed: u64,
    pub(crate) jobs: u64,
    pub(crate) memory_bytes_max: u64,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) target: &'static Target,
    pub(crate) inputs: u64,
    pub(crate) took: Duration,
    /// Place of the panic, or what else is wrong, and how often.
    pub(crate) findings: HashMap<String, u64>,
    /// An input did not end, or took too much memory: the process must end too.
    pub(crate) stuck: bool,
}

/// One thread, as the others see it.
#[derive(Debug, Default)]
struct Worker {
    done: AtomicU64,
    over: AtomicBool,
    /// What it is at.
    input: Mutex<Vec<u8>>,
}

impl Worker {
    fn input(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum News {
    Broken(Broken, Vec<u8>),
    Over,
}

/// Runs `inputs` changed inputs of one target.
pub(crate) fn target(target: &'static Target, inputs: u64, plan: &Plan) -> anyhow::Result<Report> {
    let corpus: Arc<[Vec<u8>]> = corpus(target)?.into();
    let (sender, news) = sync_channel(64);
    let workers: Vec<_> = (0..plan.jobs).map(|_| Arc::new(Worker::default())).collect();
    for (job, worker) in (0..).zip(&workers) {
        let share = inputs / plan.jobs + u64::from(job < inputs % plan.jobs);
        let seed = plan.seed.wrapping_mul(0x1_0001).wrapping_add(job);
        let (worker, corpus, sender) = (Arc::clone(worker), Arc::clone(&corpus), sender.clone());
        // Not awaited: one that hangs never ends, and the process ends without it.
        std::thread::spawn(move || work(target, &corpus, seed, share, &worker, &sender));
    }
    drop(sender);
    let began = Instant::now();
    let mut watch = Watch::new(&workers)?;
    let mut findings: HashMap<String, u64> = HashMap::new();
    let (mut running, mut stuck, mut shown) = (plan.jobs, false, began);
    while running > 0 && !stuck {
        match news.recv_timeout(LOOK) {
            Ok(News::Broken(broken, input)) => {
                let count = findings.entry(broken.place.clone()).or_default();
                *count += 1;
                if *count <= SAVED_MAX {
                    crate::report(target, &broken, &input)?;
                    // Making it small took CPU time that was no thread's.
                    watch = Watch::new(&workers)?;
                }
            }
            Ok(News::Over) => running -= 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let Some((what, worker)) = watch.look(plan)? {
            stuck = true;
            findings.insert(what.to_owned(), 1);
            for worker in worker.map_or(workers.iter().collect(), |number| vec![&workers[number]]) {
                let input = worker.input().clone();
                let path =
                    files::write(Folder::Regressions, target, &format!("{what}_{}", input.len()), &input)?;
                eprintln!("\n{}: {what}\n  {}\n  {}", target.name, files::hex(&input), path.display());
            }
        }
        if shown.elapsed() >= SHOW {
            shown = Instant::now();
            show(target, &workers, inputs, began);
        }
    }
    let inputs = workers.iter().map(|worker| worker.done.load(Ordering::Relaxed)).sum();
    Ok(Report { target, inputs, took: began.elapsed(), findings, stuck })
}

fn corpus(target: &Target) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut corpus = seeds::of(target);
    // What broke once breaks again most easily nearby.
    corpus.extend(files::read(Folder::Regressions, target)?.into_iter().map(|(_, bytes)| bytes));
    Ok(corpus)
}

fn work(
    target: &Target,
    corpus: &[Vec<u8>],
    seed: u64,
    inputs: u64,
    worker: &Worker,
    sender: &SyncSender<News>,
) {
    let mut mutator = Mutator::new(target.shape, corpus, seed);
    let mut input = Vec::new();
    for _ in 0..inputs {
        mutator.next(&mut input);
        worker.input().clone_from(&input);
        let ended = guard::run(target, &input);
        worker.done.fetch_add(1, Ordering::Relaxed);
        if let Err(broken) = ended
            && sender.send(News::Broken(broken, input.clone())).is_err()
        {
            return;
        }
    }
    worker.over.store(true, Ordering::Relaxed);
    // Nobody listens any more if another thread is stuck.
    let _ = sender.send(News::Over);
}

fn show(target: &Target, workers: &[Arc<Worker>], inputs: u64, began: Instant) {
    let done: u64 = workers.iter().map(|worker| worker.done.load(Ordering::Relaxed)).sum();
    let per_s = done as f64 / began.elapsed().as_secs_f64();
    eprintln!("{}: {done} of {inputs}, {per_s:.0}/s", target.name);
    // Nobody may be looking.
    let _ = std::io::stderr().flush();
}

/// Sees whether the threads get on.
struct Watch<'a> {
    workers: &'a [Arc<Worker>],
    /// Inputs done when last looked, and CPU seconds of the process at that time.
    seen: Vec<(u64, f64)>,
    process: procfs::process::Process,
}

impl<'a> Watch<'a> {
    fn new(workers: &'a [Arc<Worker>]) -> anyhow::Result<Self> {
        let process = procfs::process::Process::myself()?;
        Ok(Self { workers, seen: vec![(0, 0.0); workers.len()], process })
    }

    /// What is wrong, and with which thread if that is known.
    fn look(&mut self, plan: &Plan) -> anyhow::Result<Option<(&'static str, Option<usize>)>> {
        let stat = self.process.stat()?;
        if stat.rss_bytes().get() > plan.memory_bytes_max {
            return Ok(Some(("memory", None)));
        }
        let cpu_s = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        for (number, (worker, seen)) in self.workers.iter().zip(&mut self.seen).enumerate() {
            let done = worker.done.load(Ordering::Relaxed);
            if done != seen.0 || seen.1 == 0.0 {
                *seen = (done, cpu_s);
            } else if cpu_s - seen.1 > INPUT_MAX_S * plan.jobs as f64 && !worker.over.load(Ordering::Relaxed)
            {
                return Ok(Some(("endless", Some(number))));
            }
        }
        Ok(None)
    }
}
