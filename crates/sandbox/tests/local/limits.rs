//! What one sandbox uses up, it alone misses.

use std::time::{Duration, Instant};

use sandbox::runner::{Limits, Runner};

use super::rig::{Cell, rig};

const MIB: u64 = 1 << 20;

/// Keeps this much memory for two seconds, and says so.
fn hold(mebibytes: u64) -> String {
    format!("python3 -c 'import time; x = bytearray({mebibytes} << 20); time.sleep(2); print(len(x) >> 20)'")
}

#[tokio::test]
async fn memory_is_bounded_for_the_sandbox_as_a_whole_and_the_hand_lives() {
    let rig = rig();
    let small = rig.cell_with(Limits { memory_bytes: 64 * MIB, ..Limits::default() }).await;
    let large = rig.cell_with(Limits { memory_bytes: 512 * MIB, ..Limits::default() }).await;
    assert_eq!(large.shell(&hold(200)).await, "200");
    assert_ne!(small.shell(&hold(200)).await, "200");
    assert_eq!(small.shell("echo alive").await, "alive");
    assert!(rig.local.usage(small.id).await.unwrap().oom_kills >= 1);
    assert_eq!(rig.local.usage(large.id).await.unwrap().oom_kills, 0);
    // Two processes together are as bounded as one, and so is what is kept in `/tmp`.
    let half = hold(40);
    let both = format!("{half} & {half} & wait");
    assert_eq!(large.shell(&both).await, "40\n40");
    assert_ne!(small.shell(&both).await, "40\n40");
    let filled = small.shell("head -c 200M /dev/zero > /tmp/x; stat -c %s /tmp/x").await;
    assert_ne!(filled, (200 * MIB).to_string());
    let filled = large.shell("head -c 200M /dev/zero > /tmp/x; stat -c %s /tmp/x").await;
    assert_eq!(filled, (200 * MIB).to_string());
}

#[tokio::test]
async fn processes_are_bounded_and_the_hand_still_runs_commands() {
    let rig = rig();
    let cell = rig.cell_with(Limits { pids: 64, ..Limits::default() }).await;
    let script = "for i in $(seq 200); do sleep 1000 > /dev/null 2>&1 & done; jobs -p | wc -l";
    let made = cell.run(&["/bin/bash", "-c", script]).await.unwrap();
    assert!(made.2.contains("Resource temporarily unavailable"), "{made:?}");
    let held = rig.local.usage(cell.id).await.unwrap().pids;
    assert!((60..=70).contains(&held), "{held}");
    assert_eq!(cell.run(&["/bin/true"]).await.unwrap().0, 0);
    let wide = rig.cell_with(Limits { pids: 512, ..Limits::default() }).await;
    assert_eq!(wide.shell(script).await, "200");
}

/// How long `true` takes in the middle of many runs.
async fn median(cell: &Cell) -> Duration {
    let mut times = Vec::new();
    for _ in 0..60 {
        let begun = Instant::now();
        assert_eq!(cell.run(&["/bin/true"]).await.unwrap().0, 0);
        times.push(begun.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_neighbour_who_takes_all_there_is_does_not_stop_the_others() {
    let rig = rig();
    let victim = rig.cell().await;
    let quiet = median(&victim).await;
    for attack in [
        "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) > /dev/null 2>&1 & done",
        "bomb() { bomb | bomb & }; bomb > /dev/null 2>&1 &",
        "(while :; do python3 -c 'x = bytearray(2 << 30)'; done) > /dev/null 2>&1 &",
        "(while :; do for i in $(seq 20000); do : > /tmp/$i; done; rm -f /tmp/*; done) > /dev/null 2>&1 &",
        "(while :; do head -c 1G /dev/zero > /tmp/x; done) > /dev/null 2>&1 &",
    ] {
        let limits = Limits { memory_bytes: 256 * MIB, cpu_millis: 500, pids: 128, tmp_bytes: 64 * MIB };
        let attacker = rig.cell_with(limits).await;
        attacker.shell(attack).await;
        let loud = median(&victim).await;
        // The machine that runs this may have more to do than this; only a victim that stands still fails.
        assert!(loud < quiet * 20 + Duration::from_millis(200), "{attack}: {quiet:?}, {loud:?}");
        assert_eq!(attacker.run(&["/bin/true"]).await.unwrap().0, 0);
        rig.local.destroy(attacker.id).await.unwrap();
    }
}
