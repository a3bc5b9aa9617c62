//! What one sandbox uses up, it alone misses.

use std::time::{Duration, Instant};

use sandbox::runner::{Limits, Runner};

use super::every::on_every_runner;
use super::rig::{Ability, Cell, Rig, nothing_is_left, rig, traces};

on_every_runner![
    memory_is_bounded_for_the_sandbox_as_a_whole,
    processes_are_bounded_and_the_hand_still_runs_commands,
];

const MIB: u64 = 1 << 20;

/// Keeps this much memory for two seconds, and says so.
fn hold(mebibytes: u64) -> String {
    format!("python3 -c 'import time; x = bytearray({mebibytes} << 20); time.sleep(2); print(len(x) >> 20)'")
}

async fn memory_is_bounded_for_the_sandbox_as_a_whole(rig: Rig) {
    let small = rig.cell_with(Limits { memory_bytes: 64 * MIB, ..Limits::default() }).await;
    let large = rig.cell_with(Limits { memory_bytes: 512 * MIB, ..Limits::default() }).await;
    assert_eq!(large.shell(&hold(200)).await, "200");
    if !rig.can(Ability::MemoryByCommand) {
        // The whole of it ends, and nobody else.
        let held = small.run(&["/bin/bash", "-c", &hold(1_000)]).await;
        assert!(held.is_err(), "{held:?}");
        nothing_is_left(rig.directory.path(), &[small.id]).await;
        assert!(rig.local.usage(small.id).await.unwrap().oom_kills >= 1, "why is known");
        assert_eq!(large.shell("echo alive").await, "alive");
        return;
    }
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

async fn processes_are_bounded_and_the_hand_still_runs_commands(rig: Rig) {
    let cell = rig.cell_with(Limits { pids: 64, ..Limits::default() }).await;
    let script = "for i in $(seq 200); do sleep 1000 > /dev/null 2>&1 & done; jobs -p | wc -l";
    let made = cell.run(&["/bin/bash", "-c", script]).await.unwrap();
    assert!(made.2.contains("Resource temporarily unavailable"), "{made:?}");
    let held = rig.local.usage(cell.id).await.unwrap().pids;
    assert!(!rig.can(Ability::ProcessesOfTheHost) || (60..=70).contains(&held), "{held}");
    assert_eq!(cell.run(&["/bin/true"]).await.unwrap().0, 0);
    let wide = rig.cell_with(Limits { pids: 512, ..Limits::default() }).await;
    let most = if rig.can(Ability::ProcessesOfTheHost) { "200" } else { "80" };
    assert_eq!(wide.shell(&script.replace("200", most)).await, most);
}

#[tokio::test]
async fn whatever_a_command_begins_is_where_commands_are_bounded_and_the_hand_is_not() {
    let rig = rig();
    let cell = rig.cell().await;
    cell.shell("sleep 1000 > /dev/null 2>&1 & setsid -f sleep 1000 > /dev/null 2>&1").await;
    let mut found = traces(rig.directory.path(), &[cell.id]);
    // What has been forked becomes what it is to be a moment later.
    for _ in 0..200 {
        if !found["processes"].iter().any(|process| process.contains("/bin/bash")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = traces(rig.directory.path(), &[cell.id]);
    }
    let mut begun = 0;
    for process in &found["processes"] {
        let (pid, command) = process.split_once(' ').unwrap();
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let own: Vec<&str> = groups.lines().filter(|line| line.contains(&cell.id.to_string())).collect();
        let of = |part: &str| own.iter().filter(|line| line.ends_with(part)).count();
        assert_eq!(own.len(), found["groups"].len(), "{process}: {groups}");
        if command.starts_with("sleep") {
            begun += 1;
            assert!(of("/commands") > 0, "{process}: {groups}");
        } else {
            assert_eq!(of("/commands"), 0, "{process}: {groups}");
        }
    }
    assert_eq!(begun, 2);
    // Of groups of the host nothing is seen inside.
    let seen = cell.shell("cat /proc/self/cgroup").await;
    assert!(!seen.contains(&cell.id.to_string()), "{seen}");
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

#[tokio::test]
async fn files_buffers_and_shared_memory_are_the_sandboxs_own_to_use_up() {
    let rig = rig();
    let limits = Limits { memory_bytes: 128 * MIB, tmp_bytes: 64 * MIB, ..Limits::default() };
    let (greedy, other) = (rig.cell_with(limits).await, rig.cell().await);
    let shared =
        greedy.shell("head -c 100M /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x; rm /dev/shm/x").await;
    assert!(
        shared.contains("No space left on device") && shared.contains(&(16 * MIB).to_string()),
        "{shared}"
    );
    // As many as there can be of each, held while the other looks.
    let hog = |what: &str| {
        let lines = ["import os, socket, time", "held = []", "try:", "  while True: held.append(WHAT)"];
        let rest = ["except OSError as error: print(error.errno, flush=True)", "time.sleep(600)"];
        let script = [lines.as_slice(), &rest].concat().join("\n").replace("WHAT", what);
        format!(
            "python3 -c '{script}' > /tmp/said 2>&1 & while ! [ -s /tmp/said ] && kill -0 $!; do sleep 0.02; done"
        )
    };
    let filled = "(lambda p: (os.set_blocking(p[1], False), os.write(p[1], b\"x\" * 65536), p))(os.pipe())";
    let queued = "(lambda p: (p[0].setblocking(False), p[0].send(b\"x\" * 100000), p))(socket.socketpair())";
    for what in ["os.open(\"/dev/null\", 0)", filled, queued] {
        greedy.shell(&hog(what)).await;
        assert_eq!(other.shell("echo x | cat; exec 9< /dev/null; echo open").await, "x\nopen");
        let used = rig.local.usage(greedy.id).await.unwrap().memory_bytes;
        assert!(used < 128 * MIB + 64 * MIB + 192 * MIB, "{used}");
        assert_eq!(
            greedy.shell("kill %% 2> /dev/null; pkill python3; rm -f /tmp/said; echo alive").await,
            "alive"
        );
    }
}

#[tokio::test]
async fn a_flood_of_output_ends_and_takes_nothing_from_a_neighbour() {
    let rig = rig();
    let limits = Limits { memory_bytes: 128 * MIB, tmp_bytes: 64 * MIB, ..Limits::default() };
    let (loud, victim) = (rig.cell_with(limits).await, rig.cell().await);
    let quiet = median(&victim).await;
    let flood = loud.run(&["/usr/bin/head", "-c", "1G", "/dev/zero"]);
    let (flooded, beside) = tokio::join!(flood, median(&victim));
    assert_eq!(flooded.unwrap().0, 0);
    assert!(beside < quiet * 20 + Duration::from_millis(200), "{quiet:?}, {beside:?}");
    assert_eq!(loud.shell("echo alive").await, "alive");
}
