use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How a server behaves, as long as nothing else is said.
#[derive(Debug, Clone)]
pub struct Manner {
    /// Bytes a second of one connection.
    pub rate: Option<u64>,
    /// So many answers break off, each after so many bytes.
    pub break_off: (u32, u64),
    /// When an answer breaks off there is another object, with this tag.
    pub becomes: Option<(Vec<u8>, String)>,
    /// Breaking off is by a reset, not in good order.
    pub resets: bool,
    /// The entity tag; none is none.
    pub etag: Option<String>,
    /// Ranges are answered.
    pub ranges: bool,
    /// A range is answered whatever its condition says, with this tag: what an S3 does that ignores conditions.
    pub ignores_conditions: bool,
    /// A range is answered without its tag.
    pub tagless_ranges: bool,
    /// A range is answered by the whole, under the head of a range but for its length.
    pub whole_as_range: bool,
    /// One range is refused, by the whole, when the first answer has sent so many bytes or has ended.
    pub refuses_range_at: Option<usize>,
    /// The length is told.
    pub length: bool,
    /// So many requests are answered by this status first, with these headers.
    pub refusals: (u32, u16, String),
    /// After so many bytes of the first answer nothing more comes.
    pub stalls: Option<u64>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            rate: None,
            break_off: (0, 0),
            becomes: None,
            resets: false,
            etag: Some("\"one\"".to_owned()),
            ranges: true,
            ignores_conditions: false,
            tagless_ranges: false,
            whole_as_range: false,
            refuses_range_at: None,
            length: true,
            refusals: (0, 0, String::new()),
            stalls: None,
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The first byte and the one after the last, where a range was asked for.
    pub range: Option<(u64, u64)>,
    pub condition: Option<String>,
}

#[derive(Debug)]
struct State {
    content: Arc<Vec<u8>>,
    manner: Manner,
    asked: Vec<Asked>,
    /// How far the first answer is.
    sent_first: usize,
}

impl State {
    fn change(&mut self, content: Vec<u8>, etag: String) {
        self.content = Arc::new(content);
        self.manner.etag = Some(etag);
    }
}

/// A server that counts, breaks off and changes its mind; a thread for each connection.
#[derive(Debug, Clone)]
pub struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start(content: Vec<u8>, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { content: Arc::new(content), manner, asked: Vec::new(), sent_first: 0 }));
        let of_server = Arc::clone(&state);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let state = Arc::clone(&of_server);
                // Who hangs up is what many of the tests are about.
                thread::spawn(move || connection.map(|connection| serve(&connection, &state)));
            }
        });
        Self { port, state }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    pub fn forget(&self) {
        self.state.lock().unwrap().asked.clear();
    }

    /// From now on.
    pub fn behave(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.state.lock().unwrap().manner);
    }

    /// Another object under the same address.
    pub fn change(&self, content: Vec<u8>, etag: &str) {
        self.state.lock().unwrap().change(content, etag.to_owned());
    }
}

fn serve(connection: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection.try_clone()?);
    loop {
        let mut asked = Asked { range: None, condition: None };
        let mut line = String::new();
        while {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            line != "\r\n"
        } {
            let Some((name, value)) = line.trim_end().split_once(": ") else { continue };
            match name {
                "range" => {
                    let (first, last) = value.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                    asked.range = Some((first.parse().unwrap(), last.parse::<u64>().unwrap() + 1));
                }
                "if-range" | "if-match" => asked.condition = Some(value.to_owned()),
                _ => {}
            }
        }
        if !answer(connection, state, asked)? {
            return Ok(());
        }
    }
}

/// Answers one request; whether the connection stays.
fn answer(mut connection: &TcpStream, state: &Mutex<State>, asked: Asked) -> std::io::Result<bool> {
    let (content, manner, breaks_off, first) = {
        let mut state = state.lock().unwrap();
        let first = state.asked.is_empty();
        state.asked.push(asked.clone());
        if state.manner.refusals.0 > 0 {
            state.manner.refusals.0 -= 1;
            let (_, status, headers) = state.manner.refusals.clone();
            drop(state);
            connection.write_all(format!("HTTP/1.1 {status} no\r\ncontent-length: 0\r\n{headers}\r\n").as_bytes())?;
            return Ok(true);
        }
        let breaks_off = state.manner.break_off.0 > 0;
        state.manner.break_off.0 -= u32::from(breaks_off);
        let manner = state.manner.clone();
        if asked.range.is_some() {
            state.manner.refuses_range_at = None;
        }
        (Arc::clone(&state.content), manner, breaks_off, first)
    };
    let size = content.len() as u64;
    let refused_at = manner.refuses_range_at.filter(|_| asked.range.is_some());
    while refused_at.is_some_and(|at| state.lock().unwrap().sent_first < at) {
        thread::sleep(Duration::from_micros(100));
    }
    let holds = asked.condition.is_none() || asked.condition == manner.etag || manner.ignores_conditions;
    let range = asked
        .range
        .filter(|&(start, _)| manner.ranges && holds && start < size && refused_at.is_none())
        .map(|(start, end)| (start, end.min(size)));
    let (start, end) = range.filter(|_| !manner.whole_as_range).unwrap_or((0, size));
    let mut head = match range {
        Some((start, end)) => format!("HTTP/1.1 206 Partial\r\ncontent-range: bytes {start}-{}/{size}\r\n", end - 1),
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    if manner.length {
        head += &format!("content-length: {}\r\n", end - start);
    } else {
        head += "connection: close\r\n";
    }
    if let Some(etag) = manner.etag.as_ref().filter(|_| range.is_none() || !manner.tagless_ranges) {
        head += &format!("etag: {etag}\r\n");
    }
    connection.write_all(format!("{head}\r\n").as_bytes())?;
    let begun = Instant::now();
    let mut at = start;
    while at < end {
        let sent = at - start;
        if breaks_off && sent >= manner.break_off.1 {
            let mut state = state.lock().unwrap();
            if let Some((content, etag)) = state.manner.becomes.take() {
                state.change(content, etag);
            }
            drop(state);
            if manner.resets {
                socket2::SockRef::from(connection).set_linger(Some(Duration::ZERO))?;
            }
            return Ok(false);
        }
        if first && manner.stalls.is_some_and(|after| sent >= after) {
            thread::sleep(Duration::from_secs(3600));
        }
        let mut length = (end - at).min(16 * 1024);
        if breaks_off {
            length = length.min(manner.break_off.1 - sent);
        }
        let (from, to) = (usize::try_from(at).unwrap(), usize::try_from(at + length).unwrap());
        let written = connection.write_all(&content[from..to]);
        if first {
            // When nobody listens any more there is nothing to wait for.
            state.lock().unwrap().sent_first = if written.is_ok() { to } else { usize::MAX };
        }
        written?;
        at += length;
        if let Some(rate) = manner.rate {
            let due = Duration::from_secs_f64((at - start) as f64 / rate as f64);
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    Ok(manner.length)
}
