//! The worker as Python sees it: the core on a thread of its own, and threads
//! of Python's that call receivers.
//!
//! - [`pool`]: jobs on their way from the one to the others.
//! - [`receive`]: what each of those threads does.
//! - [`job`]: one message in Python's hands.
//! - [`limits`]: time limits, and who looks after them.
//! - [`observer`]: what the worker says beside.
//! - [`control`]: what the process's parent says.
//! - [`ending`]: the end of the process, if need be by force.

mod control;
mod ending;
mod job;
mod limits;
mod observer;
mod pool;
mod receive;

use std::{
    collections::HashSet,
    os::fd::RawFd,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, UNIX_EPOCH},
};

use async_signals::{
    broker::BrokerError,
    message::Queue,
    worker::{DeadLetters, Worker as Core, WorkerConfig},
};
use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyDict};

use self::{
    ending::Ending,
    job::Job,
    limits::{TimeLimits, Watch, Watchdog},
    observer::{ObserverThread, WorkerObserver},
    pool::Pool,
    receive::Receiving,
};
use crate::{
    broker::{self, seconds},
    convert, error,
};

/// What all threads of a worker share.
pub(crate) struct Shared {
    pool: Arc<Pool>,
    watch: Arc<Watch>,
    limits: TimeLimits,
    /// How long a stop waits for receivers.
    patience: Duration,
}

/// What a worker is made of before it is started.
struct Plan {
    config: WorkerConfig,
    watchdog: Watchdog,
    observer_thread: ObserverThread,
    control: Option<RawFd>,
}

/// The threads of a worker that was started.
struct Started {
    core: JoinHandle<Result<(), BrokerError>>,
    observer_thread: ObserverThread,
}

enum Stage {
    Planned(Box<Plan>),
    Started(Started),
    Ended,
}

/// Takes messages from the queues of one broker and has their receivers run, in
/// one process.
///
/// `queues` are as in a route's `declare`; `tasks` are the names of the other
/// tasks that are run; times are in seconds, sizes in bytes. `control` is a file
/// descriptor that the worker reads and closes: `t` asks it to finish what it
/// has, `d` too and as long as that takes, `q` to end at once, and its end is taken for a `t`. `observer` has the
/// methods of `async_signals._native.WorkerObserver`, called on a thread of
/// their own; `interrupt(ident)` is to interrupt a thread if it is the main
/// one, and to say whether it is.
#[pyclass(frozen, module = "async_signals._native")]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    stage: Mutex<Stage>,
}

#[pymethods]
impl Worker {
    #[new]
    #[pyo3(signature = (
        urls, *, queues, name, tasks, observer, interrupt, timeout, stop_timeout, least_prefetch, most_prefetch,
        max_deliveries, paused_queue, dead_letters=None, dead_letter_arguments=None, startup_rounds=None,
        transport_options=None, tls=None, heartbeat=None, soft_time_limit=None, time_limit=None, max_messages=None, control=None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        urls: Vec<String>,
        queues: Vec<Bound<'_, PyDict>>,
        name: String,
        tasks: HashSet<String>,
        observer: Py<PyAny>,
        interrupt: Py<PyAny>,
        timeout: f64,
        stop_timeout: f64,
        least_prefetch: usize,
        most_prefetch: usize,
        max_deliveries: u32,
        paused_queue: String,
        dead_letters: Option<String>,
        dead_letter_arguments: Option<&Bound<'_, PyDict>>,
        startup_rounds: Option<u32>,
        transport_options: Option<&Bound<'_, PyDict>>,
        tls: Option<&Bound<'_, PyDict>>,
        heartbeat: Option<f64>,
        soft_time_limit: Option<f64>,
        time_limit: Option<f64>,
        max_messages: Option<u64>,
        control: Option<RawFd>,
    ) -> PyResult<Self> {
        let broker = broker::config(py, &urls, transport_options, tls, heartbeat)?;
        let queues = queues.iter().map(|queue| convert::to_core::<Queue>(queue, "queue"));
        let observer_thread = ObserverThread::start(observer)?;
        let patience = seconds(stop_timeout)?;
        let mut config = WorkerConfig::new(broker, queues.collect::<PyResult<_>>()?);
        config.name = name;
        config.timeout = seconds(timeout)?;
        config.least_prefetch = least_prefetch;
        config.most_prefetch = most_prefetch;
        config.max_deliveries = max_deliveries;
        config.paused_queue = paused_queue;
        config.startup_rounds = startup_rounds;
        config.observer = Arc::new(WorkerObserver::new(observer_thread.clone()));
        config.dead_letters = match dead_letters {
            Some(name) => {
                let arguments = dead_letter_arguments.map(|dict| convert::to_map(dict, "dead_letter_arguments"));
                Some(DeadLetters { name, arguments: arguments.transpose()?.unwrap_or_default() })
            }
            None => None,
        };
        let limits =
            TimeLimits { soft: soft_time_limit.map(seconds).transpose()?, hard: time_limit.map(seconds).transpose()? };
        let pool = Arc::new(Pool::new(tasks, max_messages));
        let shared = Shared { pool: pool.clone(), watch: Arc::default(), limits, patience };
        let watchdog =
            Watchdog { pool, observer_thread: observer_thread.clone(), patience, interrupt: Arc::new(interrupt) };
        let plan = Plan { config, watchdog, observer_thread, control };
        Ok(Self { shared: Arc::new(shared), stage: Mutex::new(Stage::Planned(Box::new(plan))) })
    }

    /// Connects and takes messages, from now on.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let mut stage = self.stage();
        let plan = match std::mem::replace(&mut *stage, Stage::Ended) {
            Stage::Planned(plan) => *plan,
            other => {
                *stage = other;
                return Err(PyRuntimeError::new_err("a worker is started once"));
            }
        };
        *stage = Stage::Started(py.detach(|| self.shared.start(plan))?);
        Ok(())
    }

    /// Runs messages in the calling thread until the worker ends.
    ///
    /// `receiver.signal(name, sender, named, bare, job)` calls the receivers of a
    /// signal (`bare`: sender and arguments hold no references) and returns None,
    /// a list of failures, `"paused"`, or `(kind, reason)` for what cannot be run here; `receiver.task(job)` runs anything
    /// else and settles it; signals go there too while `receiver.wants_signals` holds.
    /// `receiver.escaped(error)` is told of exceptions that no receiver is to
    /// blame for. What is no Exception ends the process, and is raised.
    #[pyo3(signature = (receiver, main=false))]
    fn run(&self, receiver: &Bound<'_, PyAny>, main: bool) -> PyResult<()> {
        Receiving::new(&self.shared, receiver)?.run(main)
    }

    /// Takes nothing new, and ends when it has finished what it has; what is
    /// not finished after `timeout` goes back into its queues.
    #[pyo3(signature = (timeout=None))]
    fn stop(&self, timeout: Option<f64>) -> PyResult<()> {
        let patience = timeout.map(seconds).transpose()?.unwrap_or(self.shared.patience);
        self.shared.pool.stop(patience);
        Ok(())
    }

    /// Ends at once; what is not finished goes back into its queues.
    fn stop_now(&self) {
        self.shared.pool.stop_now();
    }

    /// Waits until it has ended. Raises what the broker said that trying again does not mend.
    fn join(&self, py: Python<'_>) -> PyResult<()> {
        let started = match std::mem::replace(&mut *self.stage(), Stage::Ended) {
            Stage::Started(started) => started,
            _ => return Ok(()),
        };
        let ended = py.detach(|| {
            let ended = started.core.join();
            // What it has said is in the log by then.
            started.observer_thread.settle();
            ended
        });
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error::misconfigured(py, error)),
            Err(_) => Err(PyRuntimeError::new_err("the worker's thread panicked")),
        }
    }

    /// Holds the job of the calling thread to other limits from now on; None: to those of the worker.
    #[pyo3(signature = (soft=None, hard=None))]
    fn limit(&self, py: Python<'_>, soft: Option<f64>, hard: Option<f64>) -> PyResult<()> {
        let own = TimeLimits { soft: soft.map(seconds).transpose()?, hard: hard.map(seconds).transpose()? };
        self.shared.watch.limit(py, own.or(self.shared.limits));
        Ok(())
    }

    /// Holds the job of the calling thread to no limits any more.
    fn unlimit(&self, py: Python<'_>) {
        self.shared.watch.limit(py, TimeLimits::default());
    }

    /// Whether the calling thread has just passed its soft limit; says so once.
    fn take_overdue(&self) -> bool {
        self.shared.watch.take_overdue()
    }

    /// How many messages were begun.
    #[getter]
    fn begun(&self) -> u64 {
        self.shared.pool.begun()
    }

    /// What runs just now, and since when, in seconds since 1970.
    fn running(&self) -> Vec<(Job, f64)> {
        let running = self.shared.watch.running();
        running
            .into_iter()
            .map(|held| {
                let since = held.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                (Job { held }, since)
            })
            .collect()
    }
}

impl Worker {
    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn start(&self, Plan { config, watchdog, observer_thread, control }: Plan) -> std::io::Result<Started> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (core, running) = Core::new(config, self.pool.clone());
        self.pool.attach(core);
        self.watch.start(watchdog)?;
        if let Some(control) = control {
            control::start(control, self.pool.clone(), self.patience)?;
        }
        let ending = Ending::new(self.pool.clone(), self.watch.clone());
        let core = thread::Builder::new().name("async-signals-worker".to_owned()).spawn(move || {
            let result = runtime.block_on(running);
            ending.end();
            result
        })?;
        Ok(Started { core, observer_thread })
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("LEFT_RUNNING", ending::LEFT_RUNNING)?;
    module.add_class::<Worker>()?;
    module.add_class::<Job>()
}
