//! Clients that take every connection that clients can have.

use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::docker::Node;
use super::server::{Addresses, Connection, Login};

/// More than any server here lets in.
const MOST: usize = 1000;

/// The crowd; it leaves when dropped.
pub struct Crowd {
    leave: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Comes back when the next one is sent away.
    pub fn at(login: &Login, node: &Node) -> Self {
        let (leave, told_to_leave) = oneshot::channel();
        let (full, is_full) = mpsc::channel();
        let (login, node) = (login.clone(), node.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let addresses = Addresses::of(&login);
                let mut connections = Vec::new();
                let refusal = loop {
                    match Connection::open(&login, &addresses, &node).await {
                        Ok(connection) => connections.push(connection),
                        Err(refusal) => break refusal,
                    }
                    assert!(connections.len() < MOST, "{} lets in more than {MOST}", node.name);
                };
                full.send((connections.len(), refusal)).unwrap();
                // Also when the one who would tell is gone.
                let _ = told_to_leave.await;
            });
        });
        let (taken, refusal) = is_full.recv().expect("the crowd is at the door");
        assert!(taken > 10 && refusal.contains("connection slots"), "after {taken} connections the next one was refused: {refusal}");
        Self { leave: Some(leave), thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            // Left already, with an error of its own.
            let _ = leave.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
