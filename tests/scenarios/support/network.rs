//! Accidents of the network between the checker and the nodes, and between the nodes.
//!
//! Everything happens inside a node's own network, and ends with its container at the latest: nothing of the host's is touched.
//! Packets are dropped by `iptables`, in one direction or by chance. So that the clients are served while the checker is
//! not, the checker comes through a door of its own: a port in the node's network that passes everything on to the server.
//! The door can be slow, since not every kernel can delay packets (`sch_netem`).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::docker::Node;

/// The port of the checker's own door.
pub const DOOR: u16 = 15432;

/// The server's port.
const SERVER: u16 = 5432;

/// A rule in a node's network, taken back when dropped.
pub struct Rule {
    network: String,
    rule: Vec<String>,
}

impl Rule {
    fn add(node: &Node, rule: &str) -> Self {
        let rule =
            Self { network: format!("/proc/{}/ns/net", node.postmaster()), rule: rule.split_whitespace().map(str::to_owned).collect() };
        let output = rule.iptables("--insert");
        assert!(output.status.success(), "iptables {:?}: {}", rule.rule, String::from_utf8_lossy(&output.stderr));
        rule
    }

    fn iptables(&self, what: &str) -> std::process::Output {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network)).args(["iptables", "--wait", what]).args(&self.rule);
        command.output().unwrap_or_else(|error| panic!("cannot run nsenter: {error}"))
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        // Gone with its container, where that has ended.
        self.iptables("--delete");
    }
}

/// Nothing that is sent to this port of the node arrives.
pub fn cut_way_in(node: &Node, port: u16) -> Rule {
    Rule::add(node, &format!("INPUT --protocol tcp --dport {port} --jump DROP"))
}

/// What is sent to this port of the node arrives, and no answer comes back.
pub fn cut_way_out(node: &Node, port: u16) -> Rule {
    Rule::add(node, &format!("OUTPUT --protocol tcp --sport {port} --jump DROP"))
}

/// Nothing that the node sends to the other one arrives; what the other one sends does.
pub fn cut_one_way(node: &Node, to: &Node) -> Rule {
    Rule::add(node, &format!("OUTPUT --destination {} --jump DROP", to.address()))
}

/// One in so many packets to this port of the node is lost, by chance.
pub fn lose_packets(node: &Node, port: u16, one_in: u32) -> Rule {
    let probability = 1.0 / f64::from(one_in);
    Rule::add(node, &format!("INPUT --protocol tcp --dport {port} --match statistic --mode random --probability {probability} --jump DROP"))
}

/// Nobody reaches the node's server over the network, its standby and the app included; over its socket it answers.
pub fn cut_off(node: &Node) -> [Rule; 2] {
    [cut_way_in(node, SERVER), cut_way_out(node, SERVER)]
}

/// A second way to a node's server, at [`DOOR`]; ends with the node's container, or with the test.
pub struct Door {
    delay: Arc<AtomicU64>,
}

impl Door {
    pub fn open(node: &Node) -> Self {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", node.postmaster())).unwrap();
        let delay = Arc::new(AtomicU64::new(0));
        let listener = thread::spawn(move || {
            // Of this thread only, and of those that it starts.
            setns(network.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, DOOR)).unwrap()
        });
        let listener = listener.join().unwrap();
        let network = std::fs::File::open(format!("/proc/{}/ns/net", node.postmaster())).unwrap();
        thread::spawn({
            let delay = Arc::clone(&delay);
            move || {
                setns(network.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                while let Ok((caller, _)) = listener.accept() {
                    // No server behind the door: the caller is sent away.
                    if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, SERVER)) {
                        pass_on(&caller, &server, &delay);
                        pass_on(&server, &caller, &delay);
                    }
                }
            }
        });
        Self { delay }
    }

    /// From now on whatever passes takes so much longer, in each direction.
    pub fn slow_down(&self, delay: Duration) {
        self.delay.store(delay.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }
}

/// Passes on what is said in one direction, in a thread of its own, until either side hangs up.
fn pass_on(from: &TcpStream, to: &TcpStream, delay: &Arc<AtomicU64>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let delay = Arc::clone(delay);
    thread::spawn(move || {
        let mut words = [0; 16 * 1024];
        while let Ok(length) = from.read(&mut words) {
            thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
            if length == 0 || to.write_all(&words[..length]).is_err() {
                break;
            }
        }
        // Hung up by the other side already.
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    });
}
