//! A task holds its worker for 500 ms; how late is what stands behind it?  The holder
//! spawns what waits; timers and descriptors belong to the runtime's one driver, queued
//! tasks to the worker.  Plain threads write to the sockets and submit by Handle::spawn.
use super::emit;
use std::io::Write;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::*};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

const HOLD: i64 = 500_000_000;
const EACH: usize = 40;

struct Round {
    base: Instant,
    late: Vec<[[AtomicI64; EACH]; 4]>,
    left: AtomicUsize,
    over: AtomicBool,
    armed: AtomicUsize,
}

impl Round {
    fn now(&self) -> i64 {
        self.base.elapsed().as_nanos() as i64
    }
    fn ran(&self, holder: usize, kind: usize, i: usize, due: i64) {
        self.late[holder][kind][i].store(self.now() - due, Relaxed);
        self.left.fetch_sub(1, AcqRel);
    }
    fn spin_until(&self, at: i64) {
        while self.now() < at {}
    }
    fn sleep_thread_until(&self, at: i64) {
        let d = at - self.now();
        if d > 0 {
            std::thread::sleep(Duration::from_nanos(d as u64))
        }
    }
}

async fn hold(r: Arc<Round>, h: usize, mode: usize, t0: i64, timers: Vec<i64>, sockets: Vec<StdStream>, byte_due: Arc<Vec<AtomicI64>>) {
    for (i, due) in timers.into_iter().enumerate() {
        let r = r.clone();
        tokio::spawn(async move {
            let at = r.base + Duration::from_nanos(due as u64);
            r.armed.fetch_add(1, Relaxed);
            tokio::time::sleep_until(at.into()).await;
            r.ran(h, 1, i, due);
        });
    }
    for (i, s) in sockets.into_iter().enumerate() {
        let (r, byte_due) = (r.clone(), byte_due.clone());
        tokio::spawn(async move {
            s.set_nonblocking(true).unwrap();
            let mut s = tokio::net::UnixStream::from_std(s).unwrap();
            r.armed.fetch_add(1, Relaxed);
            let mut b = [0u8; 1];
            assert_eq!(s.read(&mut b).await.unwrap(), 1);
            r.ran(h, 2, i, byte_due[i].load(Acquire));
        });
    }
    let at = r.base + Duration::from_nanos(t0 as u64);
    tokio::time::sleep_until(at.into()).await;
    assert!(r.armed.load(Relaxed) == r.late.len() * 2 * EACH);
    for i in 0..EACH {
        let (r, due) = (r.clone(), r.now());
        tokio::spawn(async move { r.ran(h, 0, i, due) });
    }
    let start = r.now();
    if mode == 1 || h > 0 {
        r.sleep_thread_until(start + HOLD)
    } else {
        r.spin_until(start + HOLD)
    }
    r.over.store(true, Relaxed);
    r.left.fetch_sub(1, AcqRel);
}

/// On a plain thread, so that the round's own waiting is nobody's task.
fn round(handle: Handle, workers: usize, mode: usize, number: usize) -> Arc<Round> {
    let holders = if workers >= 4 { workers * 3 / 8 } else { 1 };
    let busy = if mode == 2 { 2 * (workers - holders) } else { 0 };
    let zero = || [(); 4].map(|_| [(); EACH].map(|_| AtomicI64::new(-1)));
    let r = Arc::new(Round {
        base: Instant::now(),
        late: (0..holders).map(|_| zero()).collect(),
        left: AtomicUsize::new(holders * (4 * EACH + 1) + busy),
        over: AtomicBool::new(false),
        armed: AtomicUsize::new(0),
    });
    let mut random = (number as u32).wrapping_mul(2654435761).wrapping_add(1);
    let t0 = 100_000_000 * holders as i64;
    let mut due = |i: usize| {
        random = random.wrapping_mul(1664525).wrapping_add(1013904223);
        let jitter = (random >> 8) as i64 % (HOLD / EACH as i64 / 2);
        t0 + HOLD / 50 + i as i64 * (HOLD * 9 / 10 / EACH as i64) + jitter
    };
    let mut threads = vec![];
    for h in 0..holders {
        let byte_due: Arc<Vec<AtomicI64>> = Arc::new((0..EACH).map(|i| AtomicI64::new(due(i))).collect());
        let timers = (0..EACH).map(&mut due).collect();
        let inbox: Vec<i64> = (0..EACH).map(&mut due).collect();
        let (near, mut far): (Vec<_>, Vec<_>) = (0..EACH).map(|_| StdStream::pair().unwrap()).unzip();
        handle.spawn(hold(r.clone(), h, mode, t0, timers, near, byte_due.clone()));
        let rr = r.clone();
        threads.push(std::thread::spawn(move || {
            for (i, s) in far.iter_mut().enumerate() {
                rr.sleep_thread_until(byte_due[i].load(Relaxed));
                byte_due[i].store(rr.now(), Release);
                s.write_all(b"x").unwrap();
            }
            while rr.left.load(Acquire) > 0 {
                std::thread::sleep(Duration::from_millis(1))
            }
        }));
        let (rr, handle) = (r.clone(), handle.clone());
        threads.push(std::thread::spawn(move || {
            for (i, at) in inbox.into_iter().enumerate() {
                rr.sleep_thread_until(at);
                let (r, due) = (rr.clone(), rr.now());
                handle.spawn(async move { r.ran(h, 3, i, due) });
            }
        }));
    }
    r.sleep_thread_until(t0 - 10_000_000);
    for _ in 0..busy {
        let r = r.clone();
        handle.spawn(async move {
            while !r.over.load(Relaxed) {
                r.spin_until(r.now() + 20_000);
                tokio::task::yield_now().await
            }
            r.left.fetch_sub(1, AcqRel);
        });
    }
    threads.into_iter().for_each(|t| t.join().unwrap());
    r
}

pub async fn bench(workers: usize, rounds: usize) {
    let handle = Handle::current();
    let (done, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        for (mode, name) in ["spin", "block", "busy"].iter().enumerate() {
            if mode == 2 && workers == 1 {
                continue;
            }
            let mut sample: [Vec<i64>; 4] = Default::default();
            for i in 0..rounds {
                let r = round(handle.clone(), workers, mode, i);
                for h in &r.late {
                    for (k, of_kind) in h.iter().enumerate() {
                        sample[k].extend(of_kind.iter().map(|v| v.load(Relaxed)))
                    }
                }
            }
            for (k, kind) in ["queued", "timer", "socket", "inbox"].iter().enumerate() {
                let v = &mut sample[k];
                v.sort();
                let n = v.len();
                assert!(v[0] >= 0);
                emit(&format!("{name}.{kind}.p50"), n, v[n / 2] as f64 / 1e3, "us");
                emit(&format!("{name}.{kind}.p99"), n, v[n * 99 / 100] as f64 / 1e3, "us");
            }
        }
        done.send(()).unwrap();
    });
    wait.await.unwrap();
}
