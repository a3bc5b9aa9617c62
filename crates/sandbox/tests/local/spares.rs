//! Sandboxes that are made before anybody asks for them.

use std::collections::BTreeSet;
use std::fs;

use kernel::SandboxId;
use sandbox::runner::{Limits, Runner};

use super::rig::{Rig, eventually, nothing_is_left, rig_with_spares, traces};

/// The sandboxes that have a directory, whoever was given them.
fn there(rig: &Rig) -> BTreeSet<SandboxId> {
    let entries = fs::read_dir(rig.directory.path().join("run")).unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[tokio::test]
async fn a_sandbox_that_was_made_before_is_the_same_as_any_and_leaves_nothing() {
    let rig = rig_with_spares(2);
    // Another limit than that of those that wait: it is made when it is asked for.
    let cold = rig.cell_with(Limits { pids: 99, ..Limits::default() }).await;
    eventually("two that wait", || there(&rig).len() == 3).await;
    let mut all = there(&rig);
    assert!(all.contains(&cold.id));
    let warm = rig.cell().await;
    assert!(!there(&rig).contains(&warm.id), "it has the name that it was made under");
    let look = "sed 's/[ug]id=[0-9]*//g; s/,size=[^,]*//' /proc/mounts | sort; ls -A / /run/steading /etc; id; env; pwd; \
                grep -E '^(Cap|NoNew|Seccomp)' /proc/self/status; touch /usr/x; ls -A";
    assert_eq!(warm.shell(look).await, cold.shell(look).await);
    assert_eq!(warm.shell("echo kept > file; stat -c %U file; ls").await, "agent\nfile");
    let file = rig.directory.path().join("workspaces").join(warm.id.to_string()).join("file");
    assert_eq!(fs::read_to_string(file).unwrap(), "kept\n");
    rig.local.pause(warm.id).await.unwrap();
    rig.local.resume(warm.id).await.unwrap();
    assert!(rig.local.usage(warm.id).await.unwrap().memory_bytes > 0);
    eventually("the next one", || there(&rig).len() == 4).await;
    all.extend(there(&rig));
    let others = [rig.cell().await, rig.cell().await, rig.cell().await];
    assert_eq!(others[2].shell("echo alive").await, "alive");
    eventually("all that wait", || there(&rig).len() == 7).await;
    all.extend(there(&rig));
    rig.local.destroy(warm.id).await.unwrap();
    eventually("its end", || there(&rig).len() == 6).await;
    assert!(!traces(rig.directory.path(), &Vec::from_iter(there(&rig)))["processes"].is_empty());
    rig.local.close().await;
    nothing_is_left(rig.directory.path(), &Vec::from_iter(all)).await;
    assert!(there(&rig).is_empty());
}
