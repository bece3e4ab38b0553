//! A socket before the Docker Engine's: everything is passed on to the real Engine, but the requests that a story names are
//! refused, held back, or answered without being passed on.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What becomes of the requests that are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// An error, as the Engine answers when it cannot.
    Refuse,
    /// Nothing is answered until this is taken back; then it is passed on.
    Hold,
    /// Success is answered, and nothing is done.
    Pretend,
}

#[derive(Debug, Default)]
struct State {
    /// A part of the request's first line, and what becomes of it.
    named: Option<(String, Treatment)>,
    met: usize,
    passed_on: usize,
}

/// The socket before the Engine's.
pub struct EngineDoor {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl EngineDoor {
    /// Listens in `folder`, before the Engine at `engine`. Ends with the test.
    pub fn open(folder: &Path, engine: &Path) -> Self {
        let path = folder.join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        thread::spawn({
            let (state, engine) = (Arc::clone(&state), engine.to_owned());
            move || {
                while let Ok((caller, _)) = listener.accept() {
                    let (state, engine) = (Arc::clone(&state), engine.clone());
                    // Whatever ends it, the caller sees that its connection ended.
                    thread::spawn(move || drop(serve(caller, &engine, &state)));
                }
            }
        });
        Self { path, state }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on requests whose first line holds `words` are treated so.
    pub fn treat(&self, words: &str, treatment: Treatment) {
        let mut state = self.state.lock().unwrap();
        state.named = Some((words.to_owned(), treatment));
        state.met = 0;
    }

    /// From now on everything is passed on, what was held back included.
    pub fn let_go(&self) {
        self.state.lock().unwrap().named = None;
    }

    /// How many requests were passed on so far.
    pub fn passed_on(&self) -> usize {
        self.state.lock().unwrap().passed_on
    }

    /// How many requests were treated since [`Self::treat`].
    pub fn met(&self) -> usize {
        self.state.lock().unwrap().met
    }
}

/// One request: the Engine is told to close the connection after it, so that each request begins a connection, and is looked at.
fn serve(mut caller: UnixStream, engine: &Path, state: &Mutex<State>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if caller.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let (first, rest) = text.split_once("\r\n").unwrap_or((&text, ""));
    let treatment = {
        let mut state = state.lock().unwrap();
        let treatment = state.named.as_ref().filter(|(words, _)| first.contains(words.as_str())).map(|(_, treatment)| *treatment);
        state.met += usize::from(treatment.is_some());
        state.passed_on += usize::from(treatment.is_none());
        treatment
    };
    match treatment {
        Some(Treatment::Refuse) => {
            let words = r#"{"message":"refused by the test"}"#;
            let length = words.len();
            return write!(
                caller,
                "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{words}"
            );
        }
        Some(Treatment::Pretend) => return caller.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
        Some(Treatment::Hold) => {
            while state.lock().unwrap().named.is_some() {
                thread::sleep(Duration::from_millis(20));
            }
            // Its caller may have given up and hung up meanwhile: then this comes too late, as it may with the real Engine.
        }
        None => {}
    }
    let mut upstream = UnixStream::connect(engine)?;
    // What is attached to becomes a stream of its own, and ends by itself.
    let close = if rest.to_ascii_lowercase().contains("upgrade:") { "" } else { "Connection: close\r\n" };
    write!(upstream, "{first}\r\n{close}{rest}")?;
    let (mut from_caller, mut to_upstream) = (caller.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_caller, &mut to_upstream);
        let _ = to_upstream.shutdown(Shutdown::Write);
    });
    io::copy(&mut upstream, &mut caller)?;
    caller.shutdown(Shutdown::Both)
}
