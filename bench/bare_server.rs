//! What the app's `/health` is measured against from above: the least that an HTTP server can do. One thread waits, reads whatever comes, parses
//! nothing of it and sends an answer of the app's size. What it takes, sockets and loopback take: no server of one thread that reads and writes for each
//! request gets past it, in whatever language.
//!
//! Usage: bare_server ADDRESS
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 18\r\ncache-control: no-store\r\ncontent-type: application/json\r\n\
    date: Sun, 22 Nov 2026 09:00:00 GMT\r\n\r\n{\"status\":\"alive\"}";
const LISTENER: u64 = 0;

fn main() {
    let address = std::env::args().nth(1).expect("an address to listen on, as the first argument");
    let listener = TcpListener::bind(&address).expect("the address can be listened on");
    let waiting = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
    epoll::add(&waiting, &listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("epoll takes the listener");
    let (mut connections, mut next) = (HashMap::new(), LISTENER + 1);
    let (mut events, mut request) = (Vec::with_capacity(64), [0; 4096]);
    loop {
        epoll::wait(&waiting, spare_capacity(&mut events), None).expect("epoll waits");
        for event in events.drain(..) {
            let id = event.data.u64();
            if id == LISTENER {
                let (connection, _) = listener.accept().expect("a connection");
                connection.set_nodelay(true).expect("an option of a socket");
                epoll::add(&waiting, &connection, EventData::new_u64(next), EventFlags::IN).expect("epoll takes the connection");
                connections.insert(next, connection);
                next += 1;
            } else if let Some(connection) = connections.get_mut(&id) {
                let served = matches!(connection.read(&mut request), Ok(1..)) && connection.write_all(ANSWER).is_ok();
                if !served {
                    connections.remove(&id);
                }
            }
        }
    }
}
