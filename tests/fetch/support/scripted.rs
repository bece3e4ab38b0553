use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What somebody asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method and path.
    pub line: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

/// A service of AWS that nobody has here, as far as its manual says what it answers; one request a connection.
pub struct Scripted {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// Answers by a function: a status, headers (a line each), and a body.
    pub fn start(answer: impl Fn(&Request) -> (u16, String, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let Some(request) = read(&connection) else { continue };
                let (status, headers, body) = answer(&request);
                seen.lock().unwrap().push(request);
                let head = format!("HTTP/1.1 {status} so\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", body.len());
                // Who hangs up does not want it.
                let _ = connection.write_all((head + &body).as_bytes());
            }
        });
        Self { port, requests }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn lines(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| request.line.clone()).collect()
    }
}

fn read(connection: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(connection);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut lines = lines.into_iter();
    let line = lines.next()?.strip_suffix(" HTTP/1.1")?.to_owned();
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()))).collect();
    let request = Request { line, headers };
    let length = request.header("content-length").parse().unwrap_or(0);
    reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    Some(request)
}
