//! `tollgate demo --replicas` from its start to its end.
//!
//! Owns what happens when. Must never do to a gate what an operator could not do: they are
//! processes with files of settings.

use crate::cli::demo::bill::{compare_ledgers, write_ledger};
use crate::cli::demo::fleet::Fleet;
use crate::cli::demo::sample::{
    CONNECTIONS, Calling, SHOWN_AFTER, WORK, about, sample_upstream, start_calling,
};
use crate::cli::demo::scratch::Scratch;
use crate::cli::demo::servers::{GateServer, RecordServer, StoreServer};
use crate::config::{self, Config};
use crate::control::reload::read_files;
use crate::ledger;
use crate::model::Clock;
use anyhow::Context;
use futures_util::future::{OptionFuture, try_join_all};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Without an end that is known before, things happen as if it were so far away.
const USUAL_DURATION: Duration = Duration::from_secs(20);

/// Where the gates of the demo are, and what they share.
struct Site {
    directory: PathBuf,
    upstream: SocketAddr,
    store: StoreServer,
    nats: RecordServer,
    config: Config,
    /// The files of what is sold and of who bought it.
    sold: [PathBuf; 2],
}

impl Site {
    /// Starts a gate with a ledger of its own.
    async fn gate(&self, number: u8) -> anyhow::Result<GateServer> {
        self.start("serve", format!("gate-{number}")).await
    }

    /// Starts the collector, with a ledger of its own.
    async fn collector(&self) -> anyhow::Result<GateServer> {
        self.start("collect", "collector".to_owned()).await
    }

    fn ledger(&self, name: &str) -> PathBuf {
        self.directory.join(name).join("ledger.db")
    }

    async fn start(&self, subcommand: &str, name: String) -> anyhow::Result<GateServer> {
        let directory = self.directory.join(&name);
        std::fs::create_dir(&directory)?;
        let ledger = self.ledger(&name);
        // `serve` warns when it has to make a ledger. Here it is meant.
        ledger::create(&ledger)?;
        let path = directory.join("tollgate.yaml");
        let [catalog, accounts] = &self.sold;
        let max_delay = self.config.settings.max_delay.as_millis();
        // JSON is YAML.
        let settings = json!({
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "workers": 1,
            "replica": name,
            "upstream": {"endpoints": [format!("http://{}", self.upstream)]},
            "catalog": catalog,
            "accounts": accounts,
            "ledger": {"path": ledger},
            "admission": {
                "max_delay": format!("{max_delay}ms"),
                // The longest: clients, gates, store and upstream share one machine.
                "store": {"redis": {"nodes": [self.store.address.to_string()], "budget": "10ms"}},
            },
            "outbox": {"nats": {
                "servers": [format!("nats://{}", self.nats.address)],
                "max_bytes": "64MiB",
            }},
            "limits": {"connections": CONNECTIONS, "drain_notice": "0ms"},
        });
        std::fs::write(&path, format!("{settings:#}\n"))?;
        GateServer::start(subcommand, name, path).await
    }
}

/// Runs so many gates beside one store, kills one on the way and adds another one.
///
/// # Errors
/// When a promise was broken while it ran, or when it could not run.
pub(super) async fn show_replicas(
    config_path: &Path,
    count: u8,
    duration: Option<Duration>,
    mut out: impl Write + IsTerminal,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::pin!(stop);
    let scratch = Scratch::new()?;
    let set_up = async {
        let site = site(config_path, scratch.path()).await?;
        let collector = site.collector().await?;
        let gates = try_join_all((1..=count).map(|number| site.gate(number))).await?;
        anyhow::Ok((site, collector, gates))
    };
    let (site, collector, gates) = tokio::select! {
        set_up = set_up => set_up?,
        // What was started by now ends when it is dropped.
        () = &mut stop => return Ok(()),
    };
    write_introduction(&mut out, config_path, &site, &collector, &gates)?;
    let end = async {
        tokio::select! {
            () = tokio::time::sleep(duration.unwrap_or(Duration::MAX / 4)) => {}
            () = stop => {}
        }
    };
    let length = duration.unwrap_or(USUAL_DURATION);
    let mut show = Show {
        fleet: Fleet::new(out.is_terminal(), collector.admin),
        calling: start_calling(gates.iter().map(|gate| gate.public).collect()),
        began: Instant::now(),
        gates,
        killed: None,
        collector,
    };
    show.gates.iter().for_each(|gate| show.fleet.add(gate));
    show.play(&mut out, &site, count, length, end).await?;
    show.close(&mut out, &site).await
}

async fn site(config_path: &Path, directory: &Path) -> anyhow::Result<Site> {
    let path = config_path.to_owned();
    let config = read_files(&Clock::default(), move || config::load(&path)).await??;
    let [catalog, accounts] = config.written.sold();
    let absolute = |path: &Path| {
        let found = std::fs::canonicalize(path);
        found.with_context(|| format!("{}", path.display()))
    };
    let sold = [absolute(catalog)?, absolute(accounts)?];
    Ok(Site {
        directory: directory.to_owned(),
        upstream: sample_upstream().await?,
        store: StoreServer::start(directory).await?,
        nats: RecordServer::start(&directory.join("nats")).await?,
        config,
        sold,
    })
}

fn write_introduction(
    out: &mut impl Write,
    config_path: &Path,
    site: &Site,
    collector: &GateServer,
    gates: &[GateServer],
) -> std::io::Result<()> {
    let (served, count) = (config_path.display(), gates.len());
    writeln!(
        out,
        "{count} gates serve the catalogue and the accounts of {served}"
    )?;
    for gate in gates {
        let GateServer {
            name,
            public,
            admin,
            ..
        } = gate;
        writeln!(
            out,
            "  {name}   http://{public} (page http://{admin}/, metrics http://{admin}/metrics)"
        )?;
    }
    writeln!(out, "  store    {} (redis-server)", site.store.address)?;
    writeln!(out, "  nats     {} (nats-server)", site.nats.address)?;
    let GateServer { public, admin, .. } = collector;
    writeln!(
        out,
        "  collector http://{public} (page http://{admin}/, the gates' ledgers http://{admin}/v1/sources)"
    )?;
    writeln!(
        out,
        "  upstream http://{} (answers after {WORK:?})",
        site.upstream
    )?;
    writeln!(out, "  files    {}", site.directory.display())?;
    for client in about() {
        writeln!(out, "  client   {client}")?;
    }
    writeln!(
        out,
        "Each client sends its calls to the gates in turn. quota: calls a second that the account\n\
         may make at all gates together; peak: the most starts in any one second, over the ledgers of\n\
         all gates by the store's clock. Each gate has the records of its own calls, and sends them to\n\
         the collector, which has one ledger of all; collected: how many it has. Ctrl-C ends the demo.\n"
    )
}

/// The demo while it runs.
struct Show {
    fleet: Fleet,
    calling: Calling,
    gates: Vec<GateServer>,
    killed: Option<GateServer>,
    collector: GateServer,
    began: Instant,
}

impl Show {
    /// Draws the table until `end`. One gate is killed after three tenths of `length`, and another
    /// one is added after a half.
    async fn play(
        &mut self,
        out: &mut impl Write,
        site: &Site,
        count: u8,
        length: Duration,
        end: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        tokio::pin!(end);
        let (kill_at, add_at) = (self.began + length * 3 / 10, self.began + length / 2);
        let (mut may_kill, mut adding) = (true, None);
        let mut may_add = true;
        loop {
            tokio::select! {
                followed = self.fleet.follow(out) => followed?,
                () = sleep_until(kill_at), if may_kill => {
                    may_kill = false;
                    self.kill_one(out).await?;
                }
                () = sleep_until(add_at), if may_add => {
                    may_add = false;
                    self.say(out, &format!("gate-{} is started, with an empty ledger", count + 1))?;
                    adding = Some(Box::pin(site.gate(count + 1)));
                }
                Some(gate) = OptionFuture::from(adding.as_mut()) => {
                    adding = None;
                    self.add(out, gate?)?;
                }
                () = &mut end => return Ok(()),
            }
        }
    }

    fn say(&mut self, out: &mut impl Write, what: &str) -> anyhow::Result<()> {
        let second = self.began.elapsed().as_secs_f64();
        self.fleet
            .say(out, &format!("--- {second:.1} s: {what} ---"))
    }

    fn call_all(&self) {
        let gates = self.gates.iter().map(|gate| gate.public);
        self.calling.go_to(gates.collect());
    }

    /// Kills the second gate. Its clients go on to the others, as behind a balancer.
    async fn kill_one(&mut self, out: &mut impl Write) -> anyhow::Result<()> {
        if self.gates.len() < 2 {
            return Ok(());
        }
        // What it says last, its quotas among it: on a slow machine it was not asked before.
        self.fleet.look().await?;
        let mut gate = self.gates.remove(1);
        gate.kill();
        self.call_all();
        let told = format!(
            "{} is killed (kill -9); its clients go on to the others",
            gate.name
        );
        self.say(out, &told)?;
        self.fleet.take_ledger(&gate).await?;
        self.killed = Some(gate);
        Ok(())
    }

    fn add(&mut self, out: &mut impl Write, gate: GateServer) -> anyhow::Result<()> {
        self.say(
            out,
            &format!("{} is ready, and called from now on", gate.name),
        )?;
        self.fleet.add(&gate);
        self.gates.push(gate);
        self.call_all();
        Ok(())
    }

    /// Lets the last calls end, says whether the promises were kept, drains all, and writes what is
    /// billed.
    async fn close(mut self, out: &mut impl Write, site: &Site) -> anyhow::Result<()> {
        let must_show = self.began.elapsed() >= SHOWN_AFTER;
        let second = self.began.elapsed().as_secs_f64();
        self.calling.end().await;
        self.fleet.rest().await?;
        let mut names: Vec<String> = self.gates.iter().map(|gate| gate.name.clone()).collect();
        if let Some(killed) = self.killed.take() {
            let name = &killed.name;
            let told = format!(
                "--- {second:.1} s: no more calls; {name} is started again: what is left in its \
                 ledger goes to the collector ---"
            );
            self.fleet.say(out, &told)?;
            names.push(name.clone());
            self.gates.push(killed.started_again().await?);
        }
        self.fleet.until_collected().await?;
        let promises = self.fleet.check_promises(out, must_show);
        for gate in self.gates {
            gate.end().await?;
        }
        let collected = site.ledger(&self.collector.name);
        self.collector.end().await?;
        promises?;
        names.sort();
        let ledgers: Vec<(String, PathBuf)> = names
            .into_iter()
            .map(|name| (name.clone(), site.ledger(&name)))
            .collect();
        let Config {
            catalog, accounts, ..
        } = &site.config;
        let now = Clock::default().utc();
        compare_ledgers(out, &ledgers, &collected, catalog, now)?;
        writeln!(
            out,
            "\nFrom the collected ledger, over all gates. The month is still open, so the statements are\n\
             as they stand now. The collector fixes them after its end, and a fresh one trusts its clock\n\
             after an hour at the earliest: a demo closes no month."
        )?;
        write_ledger(out, &collected, catalog, accounts, now)
    }
}
