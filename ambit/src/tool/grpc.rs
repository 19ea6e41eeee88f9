//! A gRPC server and its clients, of every kind of stream: for each message that comes, one goes back. The service is any, the message
//! is one string (`message Text { string text = 1; }`), so that other clients can speak with it, too.
use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use std::future::poll_fn;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longest message that is taken, as gRPC's own default.
const LONGEST: usize = 4 << 20;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server that is told to end goes on: whoever has not heard yet still comes.
const LEAVES: Duration = Duration::from_secs(4);
/// So often a call is made anew that its server has not taken, as gRPC's own clients do.
const UNTAKEN: u32 = 5;
/// gRPC's `UNAVAILABLE`.
const UNAVAILABLE: &str = "14";

/// One of them.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Grpc {
    /// Answers every gRPC method: for each message that comes, one with this text before it.
    #[command(name = "grpc-server")]
    Server {
        /// Where to listen; all addresses, IPv4 and IPv6.
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// What to say before what was said.
        #[arg(long, default_value = "hello")]
        text: String,
        /// Every how many calls to answer UNAVAILABLE instead; 0 is never.
        #[arg(long, default_value_t = 0)]
        fail_every: u32,
    },
    /// Calls a gRPC method and prints each message that comes back; exits with 1 on any status but OK.
    #[command(name = "grpc-call")]
    Call {
        /// HOST:PORT.
        to: String,
        /// `/SERVICE/METHOD`.
        method: String,
        /// What to say; several are sent one after the other, each once the one before it was answered.
        #[arg(long, default_value = "hi")]
        message: Vec<String>,
        /// A header to send, `Name: value`.
        #[arg(long)]
        header: Vec<String>,
    },
    /// Makes calls of several messages on several connections for a while; prints how many, how many failed, and why.
    #[command(name = "grpc-pace")]
    Pace {
        /// HOST:PORT.
        to: String,
        /// `/SERVICE/METHOD`.
        method: String,
        /// Connections, each with one call at a time.
        #[arg(long, default_value_t = 4)]
        connections: usize,
        /// Messages of a call.
        #[arg(long, default_value_t = 5)]
        messages: usize,
        /// Milliseconds between two messages.
        #[arg(long, default_value_t = 10)]
        pause: u64,
        /// For how long.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Ends as soon as this file is there.
        #[arg(long)]
        until: Option<PathBuf>,
    },
}

/// Runs one.
pub(crate) fn run(grpc: &Grpc) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match grpc {
            Grpc::Server { port, text, fail_every } => serve(*port, text, *fail_every).await,
            Grpc::Call { to, method, message, header } => call(to, method, message, header).await,
            Grpc::Pace { to, method, connections, messages, pause, seconds, until } => {
                let paced = Paced {
                    to: to.clone(),
                    method: method.clone(),
                    messages: *messages,
                    pause: Duration::from_millis(*pause),
                    end: Instant::now() + Duration::from_secs(*seconds),
                    until: until.clone(),
                };
                paced.run(*connections).await
            }
        }
    })
}

#[allow(clippy::print_stdout, reason = "the pod's log")]
async fn serve(port: u16, text: &str, fail_every: u32) -> Result<ExitCode> {
    // `::` takes IPv4 too, except on machines without IPv6.
    let listener = match TcpListener::bind(("::", port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("cannot listen on {port}"))?,
    };
    println!("listening on {}", listener.local_addr()?);
    let leaving = watch::Sender::new(false);
    let mut told = signal(SignalKind::terminate())?;
    let end = async {
        told.recv().await;
        leaving.send_replace(true);
        tokio::time::sleep(LEAVES).await;
    };
    tokio::select! {
        failed = accept(listener, text.into(), fail_every, &leaving) => failed,
        () = end => Ok(ExitCode::SUCCESS),
    }
}

#[allow(clippy::print_stdout, reason = "the pod's log")]
async fn accept(
    listener: TcpListener,
    text: Arc<str>,
    fail_every: u32,
    leaving: &watch::Sender<bool>,
) -> Result<ExitCode> {
    let asked = Arc::new(AtomicU32::new(0));
    loop {
        let (tcp, from) = listener.accept().await?;
        let (text, asked, leaves) = (text.clone(), asked.clone(), leaving.subscribe());
        tokio::spawn(async move {
            let fails =
                move || fail_every > 0 && (asked.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(fail_every);
            if let Err(error) = connection(tcp, &text, fails, leaves).await {
                println!("{}: {error:#}", from.ip().to_canonical());
            }
        });
    }
}

async fn connection(
    tcp: TcpStream,
    text: &Arc<str>,
    fails: impl Fn() -> bool,
    mut leaves: watch::Receiver<bool>,
) -> Result<()> {
    tcp.set_nodelay(true)?;
    // h2 closes what it was given as soon as it is done. A socket that is closed over bytes that nobody has read resets the connection, and
    // the caller, which needs only to say WINDOW_UPDATE for that, loses the end of its last answer.
    let tcp = tcp.into_std()?;
    let kept = tcp.try_clone()?;
    let mut connection = h2::server::handshake(TcpStream::from_std(tcp)?).await?;
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = left(&mut leaves), if !told => {
                // What is under way goes on; the caller's next call comes on another connection.
                told = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(accepted) = accepted else { break };
        let (request, respond) = accepted?;
        let (text, fails) = (text.clone(), fails());
        tokio::spawn(answer(request, respond, text, fails));
    }
    drop(connection);
    let mut kept = TcpStream::from_std(kept)?;
    kept.shutdown().await?;
    // Whatever the caller still says, until it closes its end. One that does not is not waited for.
    let _ = timeout(LEAVES / 2, tokio::io::copy(&mut kept, &mut tokio::io::sink())).await;
    Ok(())
}

/// Resolves when the server is told to end.
async fn left(leaves: &mut watch::Receiver<bool>) {
    // An error means that it has ended.
    let _ = leaves.wait_for(|leaves| *leaves).await;
}

#[allow(clippy::print_stdout, reason = "the pod's log")]
async fn answer(request: Request<RecvStream>, respond: SendResponse<Bytes>, text: Arc<str>, fails: bool) {
    let method = request.uri().path().to_owned();
    match answered(request, respond, &text, fails).await {
        Ok(messages) => println!("{method}: {messages} messages"),
        Err(error) => println!("{method}: {error:#}"),
    }
}

async fn answered(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    text: &str,
    fails: bool,
) -> Result<usize> {
    let head = Response::builder().header("content-type", "application/grpc");
    if fails {
        // An answer that is nothing but trailers.
        let head = head.header("grpc-status", UNAVAILABLE).header("grpc-message", "not now").body(())?;
        respond.send_response(head, true)?;
        return Ok(0);
    }
    let mut sends = respond.send_response(head.body(())?, false)?;
    let mut messages = Messages::of(request.into_body());
    let mut count = 0;
    while let Some(said) = messages.next().await? {
        sends.send_data(framed(&format!("{text} {said}")), false)?;
        count += 1;
    }
    sends.send_trailers(HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]))?;
    Ok(count)
}

#[allow(clippy::print_stdout, reason = "its output is its purpose")]
async fn call(to: &str, method: &str, messages: &[String], headers: &[String]) -> Result<ExitCode> {
    let mut connection = connect(to).await?;
    let mut head = HeaderMap::new();
    for header in headers {
        let (name, value) = header.split_once(':').with_context(|| format!("{header} is not `Name: value`"))?;
        head.append(HeaderName::try_from(name.trim())?, HeaderValue::try_from(value.trim())?);
    }
    let called = async {
        let mut call = Call::begin(&mut connection, (to, method), head).await.map_err(Failed::why)?;
        for (number, message) in (1..).zip(messages) {
            let is_last = number == messages.len();
            println!("{}", call.say(message, is_last).await.map_err(Failed::why)?);
        }
        call.end().await
    };
    timeout(PATIENCE, called).await.context("no answer in time")??;
    Ok(ExitCode::SUCCESS)
}

async fn connect(to: &str) -> Result<SendRequest<Bytes>> {
    let dialled = async {
        let tcp = TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        let (sends, connection) = h2::client::Builder::new().enable_push(false).handshake::<_, Bytes>(tcp).await?;
        // An error is also told to whoever uses the connection.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        anyhow::Ok(sends)
    };
    timeout(PATIENCE, dialled).await.context("no connection in time")?.with_context(|| format!("connecting to {to}"))
}

/// Why a call did not come to its end.
enum Failed {
    /// The server has not taken it (RFC 9113, 8.7): it may be made again.
    Untaken(anyhow::Error),
    /// Anything else.
    Broken(anyhow::Error),
}

impl Failed {
    fn why(self) -> anyhow::Error {
        match self {
            Self::Untaken(why) | Self::Broken(why) => why,
        }
    }

    /// Of a call of which nothing has come back yet.
    fn before_its_answer(error: h2::Error) -> Self {
        let refused = error.reason() == Some(Reason::REFUSED_STREAM);
        let untaken = refused || error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        if untaken { Self::Untaken(error.into()) } else { Self::Broken(error.into()) }
    }
}

/// A call that is under way.
struct Call {
    sends: h2::SendStream<Bytes>,
    answer: Answer,
}

enum Answer {
    Coming(h2::client::ResponseFuture),
    Here(Messages),
}

impl Call {
    async fn begin(
        connection: &mut SendRequest<Bytes>,
        (to, method): (&str, &str),
        head: HeaderMap,
    ) -> Result<Self, Failed> {
        poll_fn(|cx| connection.poll_ready(cx)).await.map_err(|error| Failed::Untaken(error.into()))?;
        let request = Request::post(format!("http://{}{method}", to.trim_end_matches(":80")))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(());
        let mut request = request.map_err(|error| Failed::Broken(error.into()))?;
        request.headers_mut().extend(head);
        let (answer, sends) = connection.send_request(request, false).map_err(Failed::before_its_answer)?;
        Ok(Self { sends, answer: Answer::Coming(answer) })
    }

    /// Says something, and with the last of it that it was all, and waits for what comes back.
    async fn say(&mut self, text: &str, is_last: bool) -> Result<String, Failed> {
        let broken = |error: h2::Error| Failed::Broken(error.into());
        let sent = self.sends.send_data(framed(text), is_last);
        if let Answer::Coming(answer) = &mut self.answer {
            let answer = answer.await.map_err(Failed::before_its_answer)?;
            status(answer.headers()).map_err(Failed::Broken)?;
            let (status, body) = (answer.status(), answer.into_body());
            if status != http::StatusCode::OK {
                return Err(Failed::Broken(anyhow::anyhow!("HTTP status {status}")));
            }
            self.answer = Answer::Here(Messages::of(body));
        }
        sent.map_err(broken)?;
        let Answer::Here(messages) = &mut self.answer else { return Err(Failed::Broken(anyhow::anyhow!("no answer"))) };
        match messages.next().await.map_err(Failed::Broken)? {
            Some(said) => Ok(said),
            None => {
                let ended = messages.status().await;
                Err(Failed::Broken(ended.err().unwrap_or_else(|| anyhow::anyhow!("it ended early"))))
            }
        }
    }

    /// Waits for the status, after the last was said.
    async fn end(self) -> Result<()> {
        let Answer::Here(mut messages) = self.answer else { bail!("nothing was said") };
        ensure!(messages.next().await?.is_none(), "more came back than was said");
        messages.status().await
    }
}

/// `grpc-status` where one is: an error unless it is 0.
fn status(headers: &HeaderMap) -> Result<()> {
    let text = |name: HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text(GRPC_STATUS) {
        Some(status) if status != "0" => bail!("grpc-status {status}: {}", text(GRPC_MESSAGE).unwrap_or_default()),
        _ => Ok(()),
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Messages that come.
struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    fn of(body: RecvStream) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next one; None at the end.
    async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(message) = unframed(&mut self.buffer)? {
                return Ok(Some(message));
            }
            match self.body.data().await {
                Some(data) => {
                    let data = data?;
                    self.body.flow_control().release_capacity(data.len())?;
                    self.buffer.extend_from_slice(&data);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => bail!("cut in the middle of a message"),
            }
        }
    }

    /// What the trailers say, after the last message.
    async fn status(&mut self) -> Result<()> {
        let trailers = self.body.trailers().await?.context("no trailers")?;
        ensure!(trailers.contains_key(GRPC_STATUS), "no grpc-status");
        status(&trailers)
    }
}

/// A message as gRPC frames it, with one string in it.
fn framed(text: &str) -> Bytes {
    let mut message = vec![0x0a];
    let mut length = text.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(text.as_bytes());
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], &message].concat().into()
}

/// Takes the first message, if it is whole.
fn unframed(buffer: &mut BytesMut) -> Result<Option<String>> {
    let Some(head) = buffer.first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    ensure!(head[0] == 0, "a compressed message, which nobody asked for");
    ensure!(length <= LONGEST, "a message of {length} bytes: at most {LONGEST} are taken");
    if buffer.len() < 5 + length {
        return Ok(None);
    }
    buffer.advance(5);
    let mut message = buffer.split_to(length).freeze();
    if !message.has_remaining() {
        return Ok(Some(String::new()));
    }
    ensure!(message.get_u8() == 0x0a, "no Text: its first field is no string");
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        ensure!(message.has_remaining() && shift < 28, "no Text: a length that does not end");
        let byte = message.get_u8();
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    ensure!(length == message.len(), "no Text: more, or less, than one string");
    Ok(Some(String::from_utf8(message.to_vec())?))
}

/// Calls for a while.
#[derive(Clone)]
struct Paced {
    to: String,
    method: String,
    messages: usize,
    pause: Duration,
    end: Instant,
    until: Option<PathBuf>,
}

impl Paced {
    #[allow(clippy::print_stdout, reason = "its output is its purpose")]
    async fn run(self, connections: usize) -> Result<ExitCode> {
        let tasks: Vec<_> = (0..connections).map(|number| tokio::spawn(self.clone().one(number))).collect();
        let (mut asked, mut failed) = (0, Vec::new());
        for task in tasks {
            let (of_one, failures) = task.await?;
            asked += of_one;
            failed.extend(failures);
        }
        println!("{asked}\n{}", failed.len());
        failed.iter().take(10).for_each(|why| println!("{why}"));
        Ok(ExitCode::SUCCESS)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end || self.until.as_ref().is_some_and(|file| file.exists())
    }

    /// On one connection at a time.
    async fn one(self, number: usize) -> (usize, Vec<String>) {
        let (mut asked, mut failed, mut connection, mut untaken) = (0, Vec::new(), None, 0);
        while !self.is_over() && failed.len() < 10 {
            match timeout(PATIENCE, self.call(&mut connection)).await {
                Ok(Ok(())) => (asked, untaken) = (asked + 1, 0),
                Ok(Err(Failed::Untaken(_))) if untaken < UNTAKEN => (connection, untaken) = (None, untaken + 1),
                Ok(Err(error)) => {
                    failed.push(format!("{number}, after {asked}: {:#}", error.why()));
                    connection = None;
                }
                Err(_) => {
                    failed.push(format!("{number}, after {asked}: no answer in time"));
                    connection = None;
                }
            }
        }
        (asked, failed)
    }

    async fn call(&self, connection: &mut Option<SendRequest<Bytes>>) -> Result<(), Failed> {
        let fresh = connection.is_none();
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(connect(&self.to).await.map_err(Failed::Broken)?),
        };
        let begun = Call::begin(connection, (&self.to, &self.method), HeaderMap::new()).await;
        let mut call = begun.map_err(|failed| match failed {
            // One that ends as soon as it is there never was one; only GOAWAY says that another is to be opened.
            Failed::Untaken(why) if fresh && !why.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_go_away) => {
                Failed::Broken(why)
            }
            failed => failed,
        })?;
        for number in 0..self.messages {
            let said = call.say(&number.to_string(), number + 1 == self.messages).await?;
            if !said.ends_with(&format!(" {number}")) {
                return Err(Failed::Broken(anyhow::anyhow!("{number} was answered with {said}")));
            }
            tokio::time::sleep(self.pause).await;
        }
        call.end().await.map_err(Failed::Broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_and_read_again() {
        for text in ["", "hi", &"x".repeat(300), &"y".repeat(70_000)] {
            let whole = framed(text);
            let mut buffer = BytesMut::new();
            for byte in &whole[..whole.len() - 1] {
                buffer.extend_from_slice(&[*byte]);
                assert_eq!(unframed(&mut buffer).unwrap(), None, "not whole yet");
            }
            buffer.extend_from_slice(&whole[whole.len() - 1..]);
            assert_eq!(unframed(&mut buffer).unwrap().as_deref(), Some(text));
            assert!(buffer.is_empty());
        }
        assert_eq!(
            unframed(&mut BytesMut::from(&[0, 0, 0, 0, 0][..])).unwrap().as_deref(),
            Some(""),
            "no field at all"
        );
        for wrong in [&[1, 0, 0, 0, 1, 0][..], &[0, 255, 0, 0, 0], &[0, 0, 0, 0, 2, 0x12, 0], &[0, 0, 0, 0, 2, 0x0a, 9]]
        {
            assert!(unframed(&mut BytesMut::from(wrong)).is_err(), "{wrong:?}");
        }
    }
}
