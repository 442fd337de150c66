//! The files in deploy/ for many gates, their store, NATS, their collector and Prometheus: each part
//! finds the others where the files say, and the programs that can be had here read them.

use crate::deploy::{deploy, run};
use crate::harness::*;
use serde_yaml::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// The documents of a YAML file.
pub fn documents(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(deploy(file)).unwrap();
    let documents = text.split("\n---\n").map(|document| {
        let mut read: Value =
            serde_yaml::from_str(document).unwrap_or_else(|error| panic!("{file}: {error}"));
        read.apply_merge().unwrap();
        read
    });
    // Before the first one stand comments.
    documents.filter(|document| !document.is_null()).collect()
}

/// The one of this kind and name.
pub fn object<'d>(documents: &'d [Value], kind: &str, name: &str) -> &'d Value {
    let is_it = |it: &&Value| {
        it["kind"].as_str() == Some(kind) && it["metadata"]["name"].as_str() == Some(name)
    };
    let found = documents.iter().find(is_it);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The texts of a list.
fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_sequence().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).collect()
}

/// The keys of a mapping.
pub fn keys(mapping: &Value) -> BTreeSet<&str> {
    let mapping = mapping.as_mapping().unwrap();
    mapping.keys().filter_map(Value::as_str).collect()
}

/// Checks a `tollgate.yaml` with the shipped catalogue and accounts, where the containers have them.
fn check_settings(settings: &str) -> Value {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets");
    for folder in [dir.path().to_owned(), dir.path().join("sold")] {
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["catalog.yaml", "accounts.yaml"] {
            std::fs::copy(config.join(file), folder.join(file)).unwrap();
        }
    }
    std::fs::create_dir(&secrets).unwrap();
    for secret in ["admin.token", "store.password", "nats.password"] {
        std::fs::write(secrets.join(secret), "0123456789abcdef0123456789abcdef\n").unwrap();
    }
    let path = dir.path().join("tollgate.yaml");
    let read: Value = serde_yaml::from_str(settings).unwrap();
    assert!(read["admission"]["store"].is_mapping(), "{settings}");
    assert!(read["outbox"]["nats"].is_mapping(), "{settings}");
    let settings = settings.replace("/run/secrets", secrets.to_str().unwrap());
    std::fs::write(&path, settings).unwrap();
    let checked = said(
        Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["check", "--config"])
            .arg(path)
            .stdin(Stdio::null()),
    );
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    read
}

/// The NATS of today reads the settings, and has room for the stream of the outbox.
fn check_nats(conf: &str, users: Option<&str>, settings: &Value) {
    assert!(conf.contains("sync_interval: always"), "{conf}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    std::fs::write(&path, conf).unwrap();
    if let Some(users) = users {
        std::fs::write(dir.path().join("users.conf"), users).unwrap();
    }
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/nats-server");
    let said = said(
        Command::new(server)
            .args(["-t", "-c", path.to_str().unwrap()])
            .env("POD_NAME", "nats-0")
            .stdin(Stdio::null()),
    );
    assert_eq!(said.code, Some(0), "{}", said.err);
    let gigabytes = |text: &str, unit: &str| -> u32 {
        let number = text.strip_suffix(unit).unwrap_or_else(|| panic!("{text}"));
        number.parse().unwrap()
    };
    let (_, room) = conf.split_once("max_file_store: ").unwrap();
    let room = gigabytes(room.lines().next().unwrap(), "GB");
    let stream = settings["outbox"]["nats"]["max_bytes"].as_str().unwrap();
    assert!(gigabytes(stream, "GiB") < room, "{stream} in {room} GB");
}

/// Prometheus reads the settings, and scrapes with the token.
fn check_prometheus(settings: &str, token: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (own, rules) = (dir.path().join("token"), deploy("tollgate.rules.yml"));
    std::fs::write(&own, "0123456789abcdef0123456789abcdef\n").unwrap();
    assert!(settings.contains(token), "{settings}");
    let settings = settings
        .replace("/etc/prometheus/tollgate.rules.yml", "tollgate.rules.yml")
        .replace("tollgate.rules.yml", rules.to_str().unwrap())
        .replace(token, own.to_str().unwrap());
    let path = dir.path().join("prometheus.yml");
    std::fs::write(&path, settings).unwrap();
    run("promtool", &["check", "config", path.to_str().unwrap()]);
}

/// What a service names is there, and nobody else's when it is a volume or a port of the machine.
fn check_names(compose: &Value) {
    let (mut ports, mut volumes, mut used) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (name, service) in compose["services"].as_mapping().unwrap() {
        for port in texts(&service["ports"]) {
            let (on_this_machine, _) = port.rsplit_once(':').unwrap();
            assert!(on_this_machine.starts_with("127.0.0.1:"), "{port}");
            assert!(ports.insert(on_this_machine), "{port} twice");
        }
        for volume in texts(&service["volumes"]) {
            let (volume, _) = volume.split_once(':').unwrap();
            assert!(
                volume.starts_with("../") || volumes.insert(volume),
                "{volume} has two services"
            );
        }
        for kind in ["networks", "secrets"] {
            let named = texts(&service[kind]);
            assert!(kind == "secrets" || !named.is_empty(), "{name:?}");
            let there = keys(&compose[kind]);
            for it in named {
                assert!(there.contains(it), "{name:?}: no {kind} {it}");
                used.insert(it);
            }
        }
        for config in service["configs"].as_sequence().into_iter().flatten() {
            used.insert(config["source"].as_str().unwrap());
        }
        for other in texts(&service["depends_on"]) {
            assert!(compose["services"].get(other).is_some(), "no {other}");
        }
    }
    assert_eq!(volumes, keys(&compose["volumes"]));
    let named = ["networks", "secrets", "configs"].map(|kind| keys(&compose[kind]));
    assert_eq!(used, named.into_iter().flatten().collect());
    for (name, config) in compose["configs"].as_mapping().unwrap() {
        match (config["file"].as_str(), config["content"].as_str()) {
            (Some(file), None) => assert!(deploy(file).exists(), "{file}"),
            // Compose would take `$x` for a variable of its own.
            (None, Some(text)) => assert!(!text.contains('$'), "{text}"),
            _ => panic!("{name:?} has a file or a content"),
        }
    }
}

/// Grafana finds Prometheus and both dashboards where its provisioning says.
fn check_grafana(compose: &Value) {
    assert!(see_each_other(compose, "grafana", "prometheus"));
    let mounted = compose["services"]["grafana"]["configs"]
        .as_sequence()
        .unwrap();
    let target = |file: &str| {
        let of_file = |of: &&Value| {
            let source = of["source"].as_str().unwrap();
            compose["configs"][source]["file"].as_str() == Some(file)
        };
        let mount = mounted.iter().find(of_file);
        mount.unwrap_or_else(|| panic!("no {file}"))["target"]
            .as_str()
            .unwrap()
    };
    let [dashboards] = &documents("grafana/dashboards.yml")[..] else {
        panic!("one document");
    };
    let folder = dashboards["providers"][0]["options"]["path"]
        .as_str()
        .unwrap();
    for name in ["overview.json", "account.json"] {
        assert_eq!(
            target(&format!("grafana/{name}")),
            format!("{folder}/{name}")
        );
    }
    for kind in ["datasources", "dashboards"] {
        let provisioned = target(&format!("grafana/{kind}.yml"));
        assert_eq!(
            provisioned,
            format!("/etc/grafana/provisioning/{kind}/tollgate.yml")
        );
    }
    let [sources] = &documents("grafana/datasources.yml")[..] else {
        panic!("one document");
    };
    let prometheus = &sources["datasources"][0];
    assert_eq!(prometheus["type"].as_str(), Some("prometheus"));
    assert_eq!(prometheus["url"].as_str(), Some("http://prometheus:9090"));
}

/// The two services have a network in common.
fn see_each_other(compose: &Value, one: &str, other: &str) -> bool {
    let networks = |name: &str| -> BTreeSet<&str> {
        let named = texts(&compose["services"][name]["networks"]);
        named.into_iter().collect()
    };
    !networks(one).is_disjoint(&networks(other))
}

#[test]
fn the_three_gates_of_the_compose_file_have_one_store_and_a_ledger_each() {
    let [compose] = &documents("compose.yaml")[..] else {
        panic!("one document");
    };
    check_names(compose);
    let content = |name: &str| compose["configs"][name]["content"].as_str().unwrap();
    let settings = check_settings(content("tollgate"));
    let members = [
        ("gate-1", "ledger-1"),
        ("gate-2", "ledger-2"),
        ("gate-3", "ledger-3"),
        ("collector", "ledger-collected"),
    ];
    for (name, ledger) in members {
        let service = &compose["services"][name];
        assert_eq!(service["hostname"].as_str(), Some(name));
        assert_eq!(service["image"].as_str(), Some("tollgate"));
        let command = (name == "collector").then_some("collect");
        assert_eq!(texts(&service["command"]).first().copied(), command);
        let volumes = texts(&service["volumes"]);
        let ledger = format!("{ledger}:/var/lib/tollgate");
        assert!(volumes.contains(&ledger.as_str()), "{volumes:?}");
        for other in ["nats", "balancer", "prometheus"] {
            assert!(see_each_other(compose, name, other), "{name}, {other}");
        }
        let is_gate = name != "collector";
        for other in ["store", "upstream"] {
            assert_eq!(
                see_each_other(compose, name, other),
                is_gate,
                "{name}, {other}"
            );
        }
    }
    assert!(!see_each_other(compose, "balancer", "nats"));
    let store = texts(&compose["services"]["store"]["command"]);
    for setting in [
        ["--save", ""],
        ["--appendonly", "no"],
        ["--maxmemory-policy", "noeviction"],
    ] {
        assert!(store.windows(2).any(|words| words == setting), "{store:?}");
    }
    let nodes = texts(&settings["admission"]["store"]["redis"]["nodes"]);
    assert_eq!(nodes, ["store:6379"]);
    let servers = texts(&settings["outbox"]["nats"]["servers"]);
    assert_eq!(servers, ["nats://nats:4222"]);
    check_nats(content("nats"), None, &settings);
    let kept = texts(&compose["services"]["nats"]["volumes"]);
    assert_eq!(kept, ["records:/var/lib/nats"]);
    assert!(content("nats").contains("store_dir: /var/lib/nats"));
    let front = &compose["networks"]["front"]["ipam"]["config"][0]["subnet"];
    assert_eq!(texts(&settings["trusted_proxies"]), texts_of(front));

    let prometheus = content("prometheus");
    check_prometheus(prometheus, "/run/secrets/admin.token");
    let prometheus: Value = serde_yaml::from_str(prometheus).unwrap();
    let [job] = &prometheus["scrape_configs"].as_sequence().unwrap()[..] else {
        panic!("one job, or TollgateReplicasDiffer compares nothing");
    };
    check_grafana(compose);
    let (_, admin) = port_of(&settings["admin"]["listen"]);
    let expected = members.map(|(name, _)| format!("{name}:{admin}"));
    assert_eq!(texts(&job["static_configs"][0]["targets"]), expected);
}

fn texts_of(one: &Value) -> Vec<&str> {
    one.as_str().into_iter().collect()
}

/// An address and its port.
fn port_of(listen: &Value) -> (&str, u64) {
    let (address, port) = listen.as_str().unwrap().rsplit_once(':').unwrap();
    (address, port.parse().unwrap())
}

/// The ports of a container, by name.
fn container_port(set: &Value, name: &str) -> u64 {
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let ports = container["ports"].as_sequence().unwrap();
    let port = ports
        .iter()
        .find(|port| port["name"].as_str() == Some(name));
    port.unwrap()["containerPort"].as_u64().unwrap()
}

/// Each Service leads to ports of the pods that it selects, and each mount has its volume.
fn check_objects(documents: &[Value]) {
    for document in documents {
        for key in ["apiVersion", "kind"] {
            assert!(document[key].is_string(), "{document:?}");
        }
        assert!(document["metadata"]["name"].is_string(), "{document:?}");
        if document["kind"].as_str() == Some("Service") {
            let app = document["spec"]["selector"]["app"].as_str().unwrap();
            let set = object(documents, "StatefulSet", app);
            for port in document["spec"]["ports"].as_sequence().unwrap() {
                let there: BTreeSet<_> = set["spec"]["template"]["spec"]["containers"]
                    .as_sequence()
                    .unwrap()
                    .iter()
                    .flat_map(|it| it["ports"].as_sequence().unwrap())
                    .flat_map(|it| [it["name"].clone(), it["containerPort"].clone()])
                    .map(|it| serde_yaml::to_string(&it).unwrap())
                    .collect();
                let to = port.get("targetPort").unwrap_or(&port["port"]);
                let to = serde_yaml::to_string(to).unwrap();
                assert!(there.contains(&to), "{app} has no port {to}");
            }
        }
        if document["kind"].as_str() != Some("StatefulSet") {
            continue;
        }
        let (spec, name) = (&document["spec"], &document["metadata"]["name"]);
        let service = spec["serviceName"].as_str().unwrap();
        object(documents, "Service", service);
        let pod = &spec["template"];
        assert_eq!(spec["selector"]["matchLabels"], pod["metadata"]["labels"]);
        let templates = spec["volumeClaimTemplates"].as_sequence();
        let claims = templates
            .into_iter()
            .flatten()
            .map(|it| &it["metadata"]["name"]);
        let volumes = pod["spec"]["volumes"].as_sequence().unwrap().iter();
        let volumes: Vec<_> = volumes.map(|it| &it["name"]).chain(claims).collect();
        for container in pod["spec"]["containers"].as_sequence().unwrap() {
            for mount in container["volumeMounts"].as_sequence().unwrap() {
                assert!(volumes.contains(&&mount["name"]), "{name:?}: {mount:?}");
            }
        }
    }
}

#[test]
fn the_gates_on_kubernetes_pass_the_check_and_their_store_has_what_it_must_have() {
    let files = [
        "gate",
        "store",
        "nats",
        "collector",
        "prometheus",
        "network",
    ];
    let all: Vec<Value> = files
        .iter()
        .flat_map(|file| documents(&format!("kubernetes/{file}.yaml")))
        .collect();
    check_objects(&all);
    let gate = object(&all, "ConfigMap", "tollgate");
    let settings = check_settings(gate["data"]["tollgate.yaml"].as_str().unwrap());
    for (name, probed) in [("tollgate", "/readyz"), ("store", ""), ("nats", "/healthz")] {
        let set = &object(&all, "StatefulSet", name)["spec"];
        assert_eq!(set["replicas"].as_u64(), Some(3));
        let budget = object(&all, "PodDisruptionBudget", name);
        assert_eq!(budget["spec"]["maxUnavailable"].as_u64(), Some(1));
        let container = &set["template"]["spec"]["containers"][0];
        let probe = &container["readinessProbe"]["httpGet"]["path"];
        assert_eq!(probe.as_str().unwrap_or_default(), probed);
    }
    check_store(&object(&all, "ConfigMap", "store")["data"]);
    check_collector(&all, &settings);

    let outbox = &settings["outbox"]["nats"];
    let expected = [0, 1, 2].map(|n| format!("nats://nats-{n}.nats:4222"));
    assert_eq!(texts(&outbox["servers"]), expected);
    assert_eq!(outbox["replicas"].as_u64(), Some(3));
    let conf = object(&all, "ConfigMap", "nats")["data"]["nats.conf"].as_str();
    let users = object(&all, "Secret", "nats")["stringData"]["users.conf"].as_str();
    check_nats(conf.unwrap(), users, &settings);
    let user = outbox["username"].as_str().unwrap();
    let password = &object(&all, "Secret", "tollgate")["stringData"]["nats.password"];
    let login = format!("user: {user}, password: \"{}\"", password.as_str().unwrap());
    assert!(users.unwrap().contains(&login), "{users:?}");
    let policy = object(&all, "NetworkPolicy", "nats");
    let policy = serde_yaml::to_string(&policy["spec"]["ingress"]).unwrap();
    for app in [
        "app: tollgate\n",
        "app: tollgate-collector\n",
        "app: nats\n",
    ] {
        assert!(policy.contains(app), "{policy}");
    }

    let prometheus = &object(&all, "ConfigMap", "prometheus")["data"]["prometheus.yml"];
    check_prometheus(prometheus.as_str().unwrap(), "/etc/prometheus/admin.token");
    let prometheus: Value = serde_yaml::from_str(prometheus.as_str().unwrap()).unwrap();
    let [job] = &prometheus["scrape_configs"].as_sequence().unwrap()[..] else {
        panic!("one job, or TollgateReplicasDiffer compares nothing");
    };
    let each = object(&all, "Service", "tollgate-each");
    assert_eq!(each["spec"]["ports"][0]["name"].as_str(), Some("admin"));
    let names = texts(&job["dns_sd_configs"][0]["names"]);
    assert_eq!(names, ["_admin._tcp.tollgate-each"]);
    let (_, admin) = port_of(&settings["admin"]["listen"]);
    let collector = format!("tollgate-collector:{admin}");
    assert_eq!(texts(&job["static_configs"][0]["targets"]), [collector]);

    // Both ways have the same versions.
    let compose = &documents("compose.yaml")[0]["services"];
    for name in ["store", "nats", "prometheus"] {
        let set = object(&all, "StatefulSet", name);
        let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(image, &compose[name]["image"]);
    }
}

fn check_collector(all: &[Value], settings: &Value) {
    let sets = ["tollgate", "tollgate-collector"].map(|name| object(all, "StatefulSet", name));
    let [gates, collector] = sets.map(|set| &set["spec"]["template"]["spec"]);
    let [gate, container] = [gates, collector].map(|pod| &pod["containers"][0]);
    assert_eq!(texts(&container["args"]), ["collect"]);
    assert_eq!(sets[1]["spec"]["replicas"].as_u64(), Some(1));
    // The same program with the same files, and a ledger of its own.
    for same in ["image", "ports", "volumeMounts"] {
        assert_eq!(gate[same], container[same], "{same}");
    }
    assert_eq!(gates["volumes"], collector["volumes"]);
    for set in sets {
        let claim = &set["spec"]["volumeClaimTemplates"][0];
        assert_eq!(claim["metadata"]["name"].as_str(), Some("ledger"));
        assert_eq!(container_port(set, "calls"), port_of(&settings["listen"]).1);
        let (_, admin) = port_of(&settings["admin"]["listen"]);
        assert_eq!(container_port(set, "admin"), admin);
    }
    let ingress = &object(all, "Ingress", "tollgate")["spec"]["rules"][0]["http"]["paths"];
    let ways: Vec<_> = ingress
        .as_sequence()
        .unwrap()
        .iter()
        .map(|way| {
            let service = &way["backend"]["service"];
            let (to, port) = (&service["name"], service["port"]["name"].as_str().unwrap());
            let to = to.as_str().unwrap();
            let of = &object(all, "Service", to)["spec"]["ports"];
            let is_it = |it: &Value| it["name"].as_str() == Some(port);
            assert!(of.as_sequence().unwrap().iter().any(is_it), "{to} {port}");
            (
                way["path"].as_str().unwrap(),
                way["pathType"].as_str().unwrap(),
                to,
            )
        })
        .collect();
    let to = "tollgate-collector";
    assert_eq!(
        ways,
        [
            ("/v1/quota", "Exact", to),
            ("/v1/usage", "Exact", to),
            ("/v1/statements", "Prefix", to),
            ("/v1/records", "Exact", to),
            ("/", "Prefix", "tollgate"),
        ]
    );
}

fn check_store(config: &Value) {
    let lines: Vec<&str> = config["store.conf"].as_str().unwrap().lines().collect();
    for setting in [
        "save \"\"",
        "appendonly no",
        "maxmemory-policy noeviction",
        "min-replicas-to-write 1",
        "min-replicas-max-lag 1",
    ] {
        assert!(lines.contains(&setting), "{setting}");
    }
    // Which rights a user needs is told by the program, by the page and by the file alike.
    let program = include_str!("../../src/store/check_error.rs").replace("\\\n", "");
    let program: Vec<&str> = program.split_whitespace().collect();
    let rights = program.join(" ");
    let (_, rights) = rights.split_once("give it the rights `").unwrap();
    let (rights, _) = rights.split_once('`').unwrap();
    let page = std::fs::read_to_string(deploy("README.md")).unwrap();
    assert!(page.contains(rights), "{rights}");
    let script = config["store.sh"].as_str().unwrap();
    assert!(
        script.contains(&format!("+config|get {rights}\"")),
        "{rights}"
    );
}
