//! A client that holds its one connection, whatever happens, and writes over it for as long as it is served.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use super::docker::Node;
use super::server::{Addresses, Connection, Login};

/// Between two rows.
const PAUSE: Duration = Duration::from_millis(10);

/// How long one row may take: the server's side of the connection has to end, not this client's patience.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes in a thread of its own until its connection ends.
pub struct HeldClient {
    acknowledged: Arc<Mutex<Vec<Timestamp>>>,
    thread: JoinHandle<String>,
}

impl HeldClient {
    /// Connects to `node` and writes. Its rows are not the story's: they carry another name.
    pub fn connect(login: &Login, node: &Node) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let (login, node, acknowledged) = (login.clone(), node.clone(), Arc::clone(&acknowledged));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(write(&login, &node, &acknowledged))
            }
        });
        Self { acknowledged, thread }
    }

    /// How many rows were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits for the end of the connection: when the last row was acknowledged over it, and how it ended.
    pub fn ended(self) -> (Timestamp, String) {
        let how = self.thread.join().unwrap();
        let last = *self.acknowledged.lock().unwrap().last().expect("the held connection has served once");
        (last, how)
    }
}

async fn write(login: &Login, node: &Node, acknowledged: &Mutex<Vec<Timestamp>>) -> String {
    let connection = Connection::open(login, &Addresses::of(login), node).await.unwrap();
    let mut id = -Timestamp::now().as_microsecond();
    loop {
        id -= 1;
        if let Err(error) = connection.run_within(&format!("INSERT INTO scenario_rows VALUES ({id}, 'held')"), PATIENCE).await {
            return error;
        }
        acknowledged.lock().unwrap().push(Timestamp::now());
        tokio::time::sleep(PAUSE).await;
    }
}
