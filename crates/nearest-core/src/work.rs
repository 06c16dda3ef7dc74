//! What every long function is given: who computes, who is told, how to stop, how much memory there is.
//!
//! Workers compute; the thread that called polls every 50 ms, because only it may look for signals or call back.
//! The pool is private to this library, made on first use and keyed by process id: a forked child has none of its
//! parent's threads, so it leaves the parent's pool alone (never touching its locks) and makes its own.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::error::{Error, Result};
use crate::memory::{Allocator, SystemAllocator, available_bytes};

/// How often the calling thread polls.
const POLL: Duration = Duration::from_millis(50);

/// The caller's side of long work: told how far it is, asked whether to go on. Only the calling thread calls it.
pub trait Caller {
    /// `done` of `total` units of `stage` are finished; `false` stops the work.
    fn poll(&self, done: u64, total: u64, stage: &str) -> bool;
}

/// A caller that listens to nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Caller for Silent {
    fn poll(&self, _: u64, _: u64, _: &str) -> bool {
        true
    }
}

/// Executor, progress, cancel and memory of one call.
pub struct Work<'a> {
    /// Found out when first asked for: what has one task never needs to know.
    n_threads: OnceLock<usize>,
    caller: &'a dyn Caller,
    allocator: Arc<dyn Allocator>,
    memory_bytes: Option<u64>,
}

impl std::fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("n_threads", &self.n_threads).finish_non_exhaustive()
    }
}

impl<'a> Work<'a> {
    /// Work on `n_threads` threads (`None`: as many as this process may run on), reporting to `caller`.
    pub fn new(n_threads: Option<usize>, caller: &'a dyn Caller) -> Self {
        let n_threads = n_threads.map_or_else(OnceLock::new, |n| OnceLock::from(n.max(1)));
        Self { n_threads, caller, allocator: Arc::new(SystemAllocator), memory_bytes: None }
    }

    /// Work on the calling thread that nobody watches.
    pub fn inline() -> Work<'static> {
        Work::new(Some(1), &Silent)
    }

    /// The same with another allocator, as inside a server.
    #[must_use]
    pub fn with_allocator(mut self, allocator: Arc<dyn Allocator>) -> Self {
        self.allocator = allocator;
        self
    }

    /// The same with a limit on what results and scratch may take.
    #[must_use]
    pub fn with_memory(mut self, n_bytes: u64) -> Self {
        self.memory_bytes = Some(n_bytes);
        self
    }

    /// Who is told, and asked whether to go on.
    pub fn caller(&self) -> &'a dyn Caller {
        self.caller
    }

    /// How many threads may be used.
    pub fn n_threads(&self) -> usize {
        *self.n_threads.get_or_init(default_n_threads)
    }

    /// Where large buffers come from.
    pub fn allocator(&self) -> &Arc<dyn Allocator> {
        &self.allocator
    }

    /// An error if `n_bytes` for `what` are more than there is.
    pub fn check_memory(&self, n_bytes: Option<u64>, what: &str) -> Result<()> {
        // Below this, asking the system costs more than it can tell.
        const SURELY_THERE: u64 = 16 << 20;
        let limit = self.memory_bytes;
        match n_bytes {
            Some(n) if n <= SURELY_THERE && limit.is_none_or(|limit| n <= limit) => Ok(()),
            Some(n) => {
                let there = limit.unwrap_or(u64::MAX).min(available_bytes());
                if n <= there {
                    return Ok(());
                }
                Err(Error::Memory(format!("{what} would take {n} bytes, of which {there} are there")))
            }
            None => Err(Error::Memory(format!("{what} would take more bytes than can be counted"))),
        }
    }

    /// Runs `task(scratch, i)` for each i below `n_tasks`, in no particular order, and stops at the first error.
    ///
    /// Each worker makes one `scratch`. A task should last well under 50 ms: between two of them the work can stop.
    pub fn for_each<S>(
        &self,
        stage: &str,
        n_tasks: usize,
        scratch: impl Fn() -> S + Sync,
        task: impl Fn(&mut S, usize) -> Result<()> + Sync,
    ) -> Result<()> {
        let n_workers = if n_tasks <= 1 { n_tasks } else { self.n_threads().min(n_tasks) };
        if n_workers <= 1 {
            return self.run_inline(stage, n_tasks, scratch, task);
        }
        let pool = pool(self.n_threads())?;
        let shared = Shared {
            next: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
            running: Mutex::new(n_workers),
            finished: Condvar::new(),
        };
        let mut stopped = false;
        pool.in_place_scope(|scope| {
            for _ in 0..n_workers {
                scope.spawn(|_| shared.worker(n_tasks, &scratch, &task));
            }
            stopped = self.watch(&shared, stage, n_tasks as u64);
        });
        if let Some(error) = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        if stopped { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// What `task(scratch, i)` gives for each i below `n_tasks`, in this order; else as [`Work::for_each`].
    pub fn map<S, T: Send>(
        &self,
        stage: &str,
        n_tasks: usize,
        scratch: impl Fn() -> S + Sync,
        task: impl Fn(&mut S, usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let done: Vec<Mutex<Option<T>>> = (0..n_tasks).map(|_| Mutex::new(None)).collect();
        self.for_each(stage, n_tasks, scratch, |scratch, i| {
            let result = task(scratch, i)?;
            *done[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            Ok(())
        })?;
        // All of them ran.
        Ok(done
            .into_iter()
            .filter_map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect())
    }

    fn run_inline<S>(
        &self,
        stage: &str,
        n_tasks: usize,
        scratch: impl Fn() -> S,
        task: impl Fn(&mut S, usize) -> Result<()>,
    ) -> Result<()> {
        let mut scratch = scratch();
        self.in_turn(stage, n_tasks, |i| task(&mut scratch, i))
    }

    /// Runs `task(i)` for each i below `n_tasks`, one after the other on the calling thread; else as [`Work::for_each`].
    pub fn in_turn(
        &self,
        stage: &str,
        n_tasks: usize,
        mut task: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let mut last = None;
        for i in 0..n_tasks {
            if i > 0 {
                let now = Instant::now();
                let since = *last.get_or_insert(now);
                if now - since >= POLL {
                    last = Some(now);
                    if !self.caller.poll(i as u64, n_tasks as u64, stage) {
                        return Err(Error::Cancelled);
                    }
                }
            }
            task(i)?;
        }
        Ok(())
    }

    /// Polls until all workers are done; true if the caller asked to stop.
    fn watch(&self, shared: &Shared, stage: &str, total: u64) -> bool {
        let mut running = shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stopped = false;
        while *running > 0 {
            let (guard, timeout) =
                shared.finished.wait_timeout(running, POLL).unwrap_or_else(PoisonError::into_inner);
            running = guard;
            if timeout.timed_out() && !stopped {
                // The lock is let go while the caller runs foreign code.
                drop(running);
                if !self.caller.poll(shared.done.load(Ordering::Relaxed), total, stage) {
                    stopped = true;
                    shared.stop.store(true, Ordering::Relaxed);
                }
                running = shared.running.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
        stopped
    }
}

/// What the workers of one `for_each` and its watcher share.
struct Shared {
    next: AtomicUsize,
    done: AtomicU64,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
    running: Mutex<usize>,
    finished: Condvar,
}

impl Shared {
    fn worker<S>(
        &self,
        n_tasks: usize,
        scratch: &(impl Fn() -> S + Sync),
        task: &(impl Fn(&mut S, usize) -> Result<()> + Sync),
    ) {
        let _leave = Leave(self);
        let mut scratch = scratch();
        while !self.stop.load(Ordering::Relaxed) {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= n_tasks {
                break;
            }
            if let Err(error) = task(&mut scratch, i) {
                self.stop.store(true, Ordering::Relaxed);
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts a worker out, also when it panics (the scope then passes the panic on).
struct Leave<'a>(&'a Shared);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.store(true, Ordering::Relaxed);
        }
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.finished.notify_all();
    }
}

/// Work in many parts that the caller sees as one.
pub struct Whole<'a> {
    outer: &'a Work<'a>,
    stage: &'a str,
    total: u64,
    /// Of the parts that are over.
    done: Cell<u64>,
    /// Of the one that is not.
    part: Cell<u64>,
    polled: Cell<Instant>,
}

impl<'a> Whole<'a> {
    /// `total` units of `stage`.
    pub fn new(outer: &'a Work<'a>, stage: &'a str, total: u64) -> Self {
        let (done, part, polled) = (Cell::new(0), Cell::new(0), Cell::new(Instant::now()));
        Self { outer, stage, total, done, part, polled }
    }

    /// The next part, of so many units; an error if the caller asks to stop.
    pub fn part(&self, units: u64) -> Result<Work<'_>> {
        self.done.set(self.done.get() + self.part.replace(units));
        // Parts may be too short for any of them to ask.
        if self.polled.get().elapsed() >= POLL && !self.poll(0, 1, self.stage) {
            return Err(Error::Cancelled);
        }
        Ok(Work {
            n_threads: self.outer.n_threads.clone(),
            caller: self,
            allocator: self.outer.allocator.clone(),
            memory_bytes: self.outer.memory_bytes,
        })
    }
}

impl Caller for Whole<'_> {
    fn poll(&self, done: u64, total: u64, _: &str) -> bool {
        self.polled.set(Instant::now());
        let share = (u128::from(self.part.get()) * u128::from(done) / u128::from(total.max(1))) as u64;
        self.outer.caller.poll((self.done.get() + share).min(self.total), self.total, self.stage)
    }
}

/// How many processors this process may run on.
pub fn default_n_threads() -> usize {
    // Reads the affinity mask and the control group's quota.
    std::thread::available_parallelism().map_or(1, usize::from)
}

struct Pool {
    process: u32,
    threads: rayon::ThreadPool,
}

static POOL: ArcSwapOption<Pool> = ArcSwapOption::const_empty();

/// The pool of this process, with at least `n_threads` threads.
fn pool(n_threads: usize) -> Result<impl std::ops::Deref<Target = rayon::ThreadPool>> {
    struct Guard(Arc<Pool>);
    impl std::ops::Deref for Guard {
        type Target = rayon::ThreadPool;
        fn deref(&self) -> &rayon::ThreadPool {
            &self.0.threads
        }
    }
    let process = std::process::id();
    if let Some(pool) = POOL.load_full()
        && pool.process == process
        && pool.threads.current_num_threads() >= n_threads
    {
        return Ok(Guard(pool));
    }
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .thread_name(|i| format!("nearest-{i}"))
        .build()
        .map_err(|error| Error::Memory(format!("could not start {n_threads} threads: {error}")))?;
    let pool = Arc::new(Pool { process, threads });
    let before = POOL.swap(Some(pool.clone()));
    if before.as_ref().is_some_and(|before| before.process != process) {
        // Its threads do not exist here; dropping it would take locks that one of them may have held.
        std::mem::forget(before);
    }
    Ok(Guard(pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for n_threads in [1, 2, 5] {
            let work = Work::new(Some(n_threads), &Silent);
            let hits: Vec<_> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            work.for_each(
                "count",
                1000,
                || (),
                |(), i| {
                    hits[i].fetch_add(1, Ordering::Relaxed);
                    Ok(())
                },
            )
            .unwrap();
            assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn the_first_error_stops_the_work() {
        for n_threads in [1, 2] {
            let work = Work::new(Some(n_threads), &Silent);
            let ran = AtomicUsize::new(0);
            let result = work.for_each(
                "fail",
                1_000_000,
                || (),
                |(), i| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    if i == 3 { Err(Error::argument("three")) } else { Ok(()) }
                },
            );
            assert_eq!(result.unwrap_err().to_string(), "three");
            assert!(ran.load(Ordering::Relaxed) < 1_000_000);
        }
    }

    #[test]
    fn a_caller_can_stop_it() {
        struct Once(Cell<bool>);
        impl Caller for Once {
            fn poll(&self, done: u64, total: u64, stage: &str) -> bool {
                assert!(done <= total && stage == "sleep");
                self.0.set(true);
                false
            }
        }
        for n_threads in [1, 2] {
            let caller = Once(Cell::new(false));
            let work = Work::new(Some(n_threads), &caller);
            let result = work.for_each(
                "sleep",
                10_000,
                || (),
                |(), _| {
                    std::thread::sleep(Duration::from_millis(5));
                    Ok(())
                },
            );
            assert!(matches!(result, Err(Error::Cancelled)));
            assert!(caller.0.get());
        }
    }

    #[test]
    fn parts_are_told_as_a_whole() {
        struct Rising(Cell<u64>);
        impl Caller for Rising {
            fn poll(&self, done: u64, total: u64, stage: &str) -> bool {
                assert!(self.0.get() <= done && done <= total && total == 400 && stage == "all");
                self.0.set(done);
                done < 250
            }
        }
        for n_threads in [1, 2] {
            let caller = Rising(Cell::new(0));
            let outer = Work::new(Some(n_threads), &caller);
            let whole = Whole::new(&outer, "all", 400);
            let run = |n_tasks| {
                let work = whole.part(100)?;
                let sleep = |(): &mut (), _| {
                    std::thread::sleep(Duration::from_millis(9));
                    Ok(())
                };
                work.for_each("part", n_tasks, || (), sleep)
            };
            // Long enough to be asked inside, then too short for it.
            run(20).unwrap();
            assert!(caller.0.get() <= 100);
            run(2).unwrap();
            let stopped = (0..100).find_map(|_| run(2).err());
            assert!(matches!(stopped, Some(Error::Cancelled)) && caller.0.get() >= 250);
        }
    }

    #[test]
    fn memory_is_checked() {
        let work = Work::inline().with_memory(1000);
        assert!(work.check_memory(Some(1000), "this").is_ok());
        assert!(work.check_memory(Some(1001), "this").unwrap_err().to_string().contains("1001"));
        assert!(work.check_memory(None, "this").is_err());
        assert!(Work::inline().check_memory(Some(u64::MAX), "this").is_err());
    }
}
