//! What is used and listened on inside.

use std::collections::BTreeSet;
use std::fs;

use super::serve::Server;
use super::tree;
use crate::wire::{Kind, Listening, Reply, Stats};

/// The most ports of one answer; all of them fit into a frame.
const MAX_PORTS: usize = 1_500;

/// `st` of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

impl Server {
    pub fn ports(&mut self, stream: u32) {
        let own = self.proxy_port();
        let tables =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
        let ports: BTreeSet<Listening> = tables.iter().flat_map(|table| listening(table)).collect();
        let ports =
            ports.into_iter().filter(|listening| Some(listening.port) != own).take(MAX_PORTS).collect();
        self.link.say(stream, Kind::Reply, &Reply::Ports(ports));
    }

    pub fn stats(&mut self, stream: u32) {
        let all = tree::processes();
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        let page = rustix::param::page_size() as u64;
        let stats = Stats {
            processes: all.len() as u32,
            resident_bytes: all.values().map(|stat| stat.resident_pages * page).sum(),
            cpu_ms: all.values().map(|stat| stat.ticks * 1_000 / ticks_per_second.max(1)).sum(),
            commands: self.processes.values().filter(|process| process.reports.is_some()).count() as u32,
            streams: self.streams() as u32,
        };
        self.link.say(stream, Kind::Reply, &Reply::Stats(stats));
    }
}

/// What `/proc/net/tcp` or its sister says.
fn listening(table: &str) -> impl Iterator<Item = Listening> + '_ {
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, state, _, _, _, uid, ..] = fields.as_slice() else { return None };
        let (_, port) = local.rsplit_once(':')?;
        (*state == LISTENS)
            .then(|| Some(Listening { port: u16::from_str_radix(port, 16).ok()?, uid: uid.parse().ok()? }))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_listen_are_told() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0C38 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000000000000000000000000000:1435 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 2
   2: 0100007F:8AE4 0100007F:0C38 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 20 4 30 10 -1
nonsense
";
        let seen: Vec<Listening> = listening(table).collect();
        assert_eq!(seen, [Listening { port: 3128, uid: 0 }, Listening { port: 5173, uid: 1000 }]);
    }
}
