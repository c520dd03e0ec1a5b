//! `natterjack chat`: the terminal client (step 1 for people). A full screen on a terminal (`full`), else plain lines
//! in and out.
//!
//! A line is a message to the current thread, `/…` a command. `--json` gives one object per line, for scripts. When
//! standard input ends it waits until the outbox is empty: exit 0, or 1 with the number of messages that were not sent.

mod act;
mod day;
mod full;
mod input;
mod line;
mod names;
mod presence;
mod screen;

use std::{io::IsTerminal, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use natterjack_client::{Client, ClientEvent, Events, OutboxStore};
use natterjack_protocol::{Code, Refusal, client::frame::DeviceClass, text};
use tokio::time::Instant;

pub use self::input::typed_password;
use self::{
    act::Chat,
    input::StdinLines,
    names::NameCache,
    screen::{Screen, took_over},
};

/// The result of a message whose refusal is final, in words.
fn outcome(refusal: &Refusal) -> String {
    match refusal.code {
        Code::ResendTooOld => format!("not known whether sent: {}", refusal.message),
        _ => format!("not sent: {}", refusal.message),
    }
}

/// How long the end of standard input waits for the outbox.
const DRAIN: Duration = Duration::from_secs(30);

/// Chat from a terminal or a script.
#[derive(Clone, clap::Args)]
pub struct ChatArgs {
    /// Edges to connect to, for instance ws://127.0.0.1:8080 (or wss://… for TLS); more are learnt from them.
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    edge: Vec<String>,
    /// A file with certificates in PEM that are trusted beside the public ones, for edges of a private authority.
    #[arg(long, value_name = "FILE", env = "NATTERJACK_CA")]
    ca: Option<PathBuf>,
    /// Your name.
    #[arg(long)]
    name: String,
    /// Create the account first (not needed again with --state).
    #[arg(long)]
    register: bool,
    /// What to call this device in your list of them; the name of this machine if it is not given.
    #[arg(long, value_name = "NAME")]
    device_name: Option<String>,
    /// Prompted for if it is not given. Other users of this machine can see the arguments of a process, not its
    /// environment.
    #[arg(long, env = "NATTERJACK_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Folder for the login, unsent messages and read positions; without it they end with the program.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Open the thread with this user first.
    #[arg(long, value_name = "NAME", conflicts_with = "group")]
    to: Option<String>,
    /// Open this group first.
    #[arg(long, value_name = "NAME_OR_ID")]
    group: Option<String>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// Plain lines, also on a terminal (where the default is a full screen).
    #[arg(long)]
    plain: bool,
    /// Keep reading after standard input has ended.
    #[arg(long, value_name = "SECONDS|forever", value_parser = follow)]
    follow: Option<Follow>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Follow {
    For(Duration),
    Forever,
}

/// Without the password.
impl std::fmt::Debug for ChatArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatArgs").field("edge", &self.edge).field("name", &self.name).finish_non_exhaustive()
    }
}

fn follow(s: &str) -> Result<Follow, String> {
    if s == "forever" {
        return Ok(Follow::Forever);
    }
    let seconds = s.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0 && *n < 1e9);
    seconds.map(|n| Follow::For(Duration::from_secs_f64(n))).ok_or_else(|| "a number of seconds, or `forever`".into())
}

impl ChatArgs {
    /// Standard input and output are a terminal that can move its cursor.
    pub fn is_full_screen(&self) -> bool {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        !self.plain && !self.json && !dumb && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    }

    fn file(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|folder| folder.join("client.db"))
    }
}

pub async fn run(args: ChatArgs) -> anyhow::Result<()> {
    let fresh = !args.file().is_some_and(|file| file.exists());
    let (client, events) = connect(&args).await?;
    let ended = if args.is_full_screen() {
        let begin = full::Begin { to: args.to.clone(), group: args.group.clone(), fresh };
        full::run(&client, events, begin).await
    } else {
        let mut chat = Chat::new(client.clone(), NameCache::new(&client), Screen::new(args.json));
        chat.begin(args.to.as_deref(), args.group.as_deref()).await?;
        talk(&mut chat, events, args.follow).await
    };
    client.close().await;
    let unsent = client.unsent();
    Screen::new(args.json).closing(unsent, args.state.is_some());
    ended?;
    if unsent > 0 {
        bail!("{unsent} {} not sent", if unsent == 1 { "message was" } else { "messages were" });
    }
    Ok(())
}

async fn connect(args: &ChatArgs) -> anyhow::Result<(Client, Events)> {
    let builder = Client::builder()
        .edges(args.edge.iter().map(String::as_str))
        .class(DeviceClass::Desktop)
        .app(concat!("natterjack ", env!("CARGO_PKG_VERSION")));
    let machine = || text::device_name(&rustix::system::uname().nodename().to_string_lossy()).ok();
    let builder = match args.device_name.clone().or_else(machine) {
        None => builder,
        Some(name) => builder.device_name(name),
    };
    let builder = match &args.ca {
        None => builder,
        Some(ca) => {
            builder.root_certificates(std::fs::read(ca).with_context(|| format!("--ca: cannot read {}", ca.display()))?)
        }
    };
    let file = args.file();
    let known = file.as_ref().is_some_and(|file| file.exists());
    let builder = match file {
        None => builder,
        Some(file) => builder.store(OutboxStore::File(file)),
    };
    let builder = match (&args.password, known) {
        (Some(password), _) if args.register => builder.register(&args.name, password),
        (Some(password), _) => builder.login(&args.name, password),
        // A folder with a login needs no password.
        (None, true) => match builder.clone().name(&args.name).connect().await {
            Err(natterjack_client::ConnectError::NoLogin) => {
                builder.login(&args.name, input::password(&args.name).await?)
            }
            done => return done.map_err(said),
        },
        (None, false) => {
            let password = input::password(&args.name).await?;
            if args.register { builder.register(&args.name, password) } else { builder.login(&args.name, password) }
        }
    };
    builder.connect().await.map_err(said)
}

/// Its text names the cause already; a chain of causes would repeat it.
fn said(e: natterjack_client::ConnectError) -> anyhow::Error {
    anyhow::anyhow!("{e}")
}

/// Lines in, events out, until standard input has ended and nothing is left to do.
async fn talk(chat: &mut Chat, mut events: Events, follow: Option<Follow>) -> anyhow::Result<()> {
    let mut input = StdinLines::start()?;
    let mut open = true;
    let (mut drain_until, mut follow_until) = (None, None);
    let mut displaced = None;
    loop {
        if !open {
            // Nobody can say /here any more.
            if let Some(by) = &displaced {
                bail!(took_over(by));
            }
            let drained = chat.client.unsent() == 0 || drain_until.is_some_and(|t| t <= Instant::now());
            let followed = match follow {
                Some(Follow::Forever) => false,
                _ => follow_until.is_none_or(|t: Instant| t <= Instant::now()),
            };
            if drained && followed {
                return Ok(());
            }
        }
        let wake = if open { chat.wake() } else { Some(Instant::now() + Duration::from_millis(50)) };
        // Order: what arrives is shown before the next line is taken, so a script sees answers before it goes on.
        tokio::select! {
            biased;
            stop = tokio::signal::ctrl_c() => return stop.context("wait for Ctrl-C"),
            event = events.next() => match event {
                Some(ClientEvent::LoggedOut { refusal }) => bail!("logged out: {refusal}"),
                Some(ClientEvent::Ended { code, reason }) => bail!("the server ended the session: {reason} ({code})"),
                Some(event) => {
                    match &event {
                        ClientEvent::Displaced(by) => displaced = Some(by.by.clone()),
                        ClientEvent::Connected { .. } => displaced = None,
                        _ => {}
                    }
                    chat.show(event).await;
                }
                None => bail!("the client has stopped"),
            },
            line = input.next(), if open => match line {
                Some(line) => {
                    if !chat.line(&line).await {
                        return Ok(());
                    }
                }
                None => {
                    open = false;
                    drain_until = Some(Instant::now() + DRAIN);
                    follow_until = match follow {
                        Some(Follow::For(time)) => Some(Instant::now() + time),
                        _ => None,
                    };
                }
            },
            () = until(wake) => chat.tick().await,
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follow_is_a_time_or_forever() {
        assert_eq!(follow("forever"), Ok(Follow::Forever));
        assert_eq!(follow("1.5"), Ok(Follow::For(Duration::from_millis(1_500))));
        for bad in ["", "-1", "NaN", "soon", "1e300"] {
            assert!(follow(bad).is_err(), "{bad}");
        }
    }
}
