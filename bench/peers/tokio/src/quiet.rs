//! How soon a sleeping runtime is awake, and what it burns while it has little to do.
use crate::{cpu_seconds, emit};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Processor time in a second that a plain thread waits out.
fn second() -> f64 {
    std::thread::sleep(Duration::from_millis(100));
    let (t, cpu) = (Instant::now(), cpu_seconds());
    std::thread::sleep(Duration::from_secs(1));
    (cpu_seconds() - cpu) / t.elapsed().as_secs_f64()
}

fn measure(h: Handle, workers: usize, n: usize) {
    let cpu = cpu_seconds();
    let epoch = Instant::now();
    let woken = Arc::new(AtomicU64::new(0));
    let mut ns: Vec<u64> = (0..n)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let w = woken.clone();
            let start = epoch.elapsed().as_nanos() as u64;
            h.spawn(async move { w.store(epoch.elapsed().as_nanos() as u64, Release) });
            loop {
                match woken.swap(0, AcqRel) {
                    0 => std::thread::sleep(Duration::from_micros(50)),
                    at => return at - start,
                }
            }
        })
        .collect();
    let cpu = cpu_seconds() - cpu;
    ns.sort();
    emit("wake.p50", n, ns[n / 2] as f64 / 1e3, "us");
    emit("wake.p99", n, ns[n * 99 / 100] as f64 / 1e3, "us");
    emit("wake.cpu", n, cpu * 1e6 / n as f64, "us/wake");
    emit("idle.cpu", 1, second() * 1e3, "ms");
    if workers == 1 {
        return;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let s = stop.clone();
    h.spawn(async move {
        while !s.load(Relaxed) {
            let t = Instant::now();
            while t.elapsed() < Duration::from_micros(20) {}
            tokio::task::yield_now().await
        }
    });
    emit("half.cpu", 1, second(), "processors");
    stop.store(true, Relaxed);

    let (stop, trips) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (atx, mut arx) = mpsc::channel::<usize>(1);
    let (btx, mut brx) = mpsc::channel::<usize>(1);
    let cpu = cpu_seconds();
    h.spawn(async move {
        while let Some(v) = arx.recv().await {
            btx.send(v).await.unwrap()
        }
    });
    let (s, count) = (stop.clone(), trips.clone());
    let ping = h.spawn(async move {
        while !s.load(Relaxed) {
            atx.send(0).await.unwrap();
            brx.recv().await.unwrap();
            count.fetch_add(1, Relaxed);
        }
    });
    second();
    stop.store(true, Relaxed);
    crate::block_on(ping).unwrap();
    let trips = trips.load(Relaxed);
    emit("pair.cpu", trips, (cpu_seconds() - cpu) * 1e6 / trips as f64, "us/roundtrip");
}

pub async fn bench(workers: usize, n: usize) {
    let h = Handle::current();
    let (tx, rx) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        measure(h, workers, n);
        tx.send(()).unwrap();
    });
    rx.await.unwrap();
}
