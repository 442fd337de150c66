//! The manifests of Kubernetes against its schemas, and what its security promises: who reaches whom,
//! and what a container may do.

use crate::deploy::deploy;
use crate::deploy_many::{documents, keys, object};
use crate::harness::said;
use serde_yaml::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Every file of manifests, those for the operator of Prometheus last.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["kubernetes", "kubernetes/operator"] {
        let mut here: Vec<PathBuf> = std::fs::read_dir(deploy(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        here.sort();
        files.extend(here);
    }
    assert!(files.len() >= 7, "{files:?}");
    files
}

fn all() -> Vec<Value> {
    let files = files();
    files
        .iter()
        .flat_map(|file| documents(file.to_str().unwrap()))
        .collect()
}

fn validated(paths: &[PathBuf]) -> crate::harness::Output {
    let program = "target/venv/bin/kubernetes-validate";
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
    let mut command = Command::new(program);
    command.args(["--strict", "--quiet"]).args(paths);
    said(command.stdin(Stdio::null()))
}

/// The schema of an object that is the operator's own is not among Kubernetes': it is read below.
#[test]
fn the_schemas_of_kubernetes_accept_every_manifest_and_no_slip() {
    let dir = tempfile::tempdir().unwrap();
    let monitor = std::fs::read_to_string(deploy("kubernetes/operator/monitor.yaml")).unwrap();
    let (_, policy) = monitor.split_once("# Adds to network.yaml.").unwrap();
    let own = dir.path().join("monitor.yaml");
    std::fs::write(&own, policy).unwrap();
    let mut files = files();
    files.retain(|file| !file.ends_with("monitor.yaml"));
    files.push(own);
    let accepted = validated(&files);
    assert_eq!(accepted.code, Some(0), "{}{}", accepted.out, accepted.err);

    let gate = std::fs::read_to_string(deploy("kubernetes/gate.yaml")).unwrap();
    for (from, to) in [
        ("  replicas: 3\n", "  replicas: three\n"),
        ("readOnlyRootFilesystem", "readOnlyRootFileSystem"),
    ] {
        assert!(gate.contains(from), "{from}");
        let slip = dir.path().join("slip.yaml");
        std::fs::write(&slip, gate.replace(from, to)).unwrap();
        let refused = validated(&[slip]);
        assert_ne!(refused.code, Some(0), "{to}");
    }
}

#[test]
fn no_container_may_more_than_it_needs() {
    let mut seen = 0;
    for set in all().iter().filter(|it| it["kind"] == "StatefulSet") {
        let (name, pod) = (&set["metadata"]["name"], &set["spec"]["template"]["spec"]);
        assert_eq!(pod["automountServiceAccountToken"], false, "{name:?}");
        let own = &pod["securityContext"];
        assert_eq!(own["runAsNonRoot"], true, "{name:?}");
        assert!(own["runAsUser"].as_u64().unwrap() > 0, "{name:?}");
        assert_eq!(own["seccompProfile"]["type"], "RuntimeDefault", "{name:?}");
        for kind in ["initContainers", "containers"] {
            for container in pod[kind].as_sequence().into_iter().flatten() {
                let may = &container["securityContext"];
                assert_eq!(may["allowPrivilegeEscalation"], false, "{container:?}");
                assert_eq!(may["readOnlyRootFilesystem"], true, "{container:?}");
                assert_eq!(may["capabilities"]["drop"][0], "ALL", "{container:?}");
                assert!(may["privileged"].is_null(), "{container:?}");
                if kind == "containers" {
                    assert!(container["readinessProbe"].is_mapping(), "{container:?}");
                    assert!(container["resources"]["limits"]["memory"].is_string());
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= 6, "{seen}");
}

/// A pod, or somebody outside the cluster (`labels` is empty).
struct Peer {
    namespace: &'static str,
    labels: &'static [(&'static str, &'static str)],
}

const fn pod(labels: &'static [(&'static str, &'static str)]) -> Peer {
    let namespace = "default";
    Peer { namespace, labels }
}

const GATE: Peer = pod(&[("app", "tollgate")]);
const COLLECTOR: Peer = pod(&[("app", "tollgate-collector")]);
const STORE: Peer = pod(&[("app", "store")]);
const NATS: Peer = pod(&[("app", "nats")]);
const UPSTREAM: Peer = pod(&[("app", "upstream")]);
const PROMETHEUS: Peer = pod(&[("app", "prometheus")]);
const OUTSIDE: Peer = Peer {
    namespace: "",
    labels: &[],
};
const NAMES: Peer = Peer {
    namespace: "kube-system",
    labels: &[("k8s-app", "kube-dns")],
};
const OPERATED: Peer = Peer {
    namespace: "monitoring",
    labels: &[("app.kubernetes.io/name", "prometheus")],
};

/// Whether a selector of labels fits.
fn selects(selector: &Value, labels: &[(&str, &str)]) -> bool {
    let has = |key: &str, value: &Value| {
        labels
            .iter()
            .any(|(name, is)| *name == key && value.as_str() == Some(is))
    };
    let words = selector["matchLabels"].as_mapping().into_iter().flatten();
    let mut words = words.map(|(key, value)| has(key.as_str().unwrap(), value));
    let expressions = selector["matchExpressions"]
        .as_sequence()
        .into_iter()
        .flatten();
    let mut expressions = expressions.map(|it| {
        assert_eq!(it["operator"], "In");
        let values = it["values"].as_sequence().unwrap();
        values
            .iter()
            .any(|value| has(it["key"].as_str().unwrap(), value))
    });
    words.all(|fits| fits) && expressions.all(|fits| fits)
}

/// Whether the policies let `peer` through in this direction; `port` as number and as name.
fn lets(all: &[Value], way: &str, of: &Peer, peer: &Peer, port: (u64, &str)) -> bool {
    let (types, list, ends) = match way {
        "in" => ("Ingress", "ingress", "from"),
        _ => ("Egress", "egress", "to"),
    };
    let policies = all
        .iter()
        .filter(|it| it["kind"] == "NetworkPolicy")
        .filter(|it| {
            let names = it["spec"]["policyTypes"].as_sequence().unwrap();
            let is_of = of.namespace == "default" && selects(&it["spec"]["podSelector"], of.labels);
            is_of && names.iter().any(|name| name == types)
        });
    let mut policies = policies.peekable();
    if policies.peek().is_none() {
        return true;
    }
    policies.any(|policy| {
        let mut rules = policy["spec"][list].as_sequence().into_iter().flatten();
        rules.any(|rule| {
            let fits = |end: &Value| {
                let namespace = [("kubernetes.io/metadata.name", peer.namespace)];
                let here = match end.get("namespaceSelector") {
                    Some(selector) => selects(selector, &namespace),
                    None => peer.namespace == "default",
                };
                here && selects(&end["podSelector"], peer.labels)
            };
            let ends = rule[ends].as_sequence();
            let ports = rule["ports"].as_sequence();
            ends.is_none_or(|ends| ends.iter().any(fits))
                && ports.is_none_or(|ports| {
                    let mut ports = ports.iter().map(|it| &it["port"]);
                    ports.any(|it| it == port.0 || it == port.1)
                })
        })
    })
}

#[test]
fn who_reaches_whom_is_what_the_way_of_a_call_and_of_a_record_needs() {
    let all = all();
    let reaches = |from: &Peer, to: &Peer, port: (u64, &str)| {
        lets(&all, "out", from, to, port) && lets(&all, "in", to, from, port)
    };
    let (calls, admin) = ((8080, "calls"), (9090, "admin"));
    let (store, sentinel, nats) = ((6379, "store"), (26379, "sentinel"), (4222, "nats"));
    for (from, to, port, expected) in [
        (&OUTSIDE, &GATE, calls, true),
        (&OUTSIDE, &COLLECTOR, calls, true),
        (&OUTSIDE, &GATE, admin, false),
        (&OUTSIDE, &COLLECTOR, admin, false),
        (&UPSTREAM, &GATE, admin, false),
        (&PROMETHEUS, &GATE, admin, true),
        (&PROMETHEUS, &COLLECTOR, admin, true),
        (&OPERATED, &GATE, admin, true),
        (&OPERATED, &COLLECTOR, admin, true),
        (&GATE, &STORE, store, true),
        (&GATE, &STORE, sentinel, true),
        (&GATE, &NATS, nats, true),
        (&COLLECTOR, &NATS, nats, true),
        (&COLLECTOR, &STORE, store, false),
        (&COLLECTOR, &UPSTREAM, (80, "http"), false),
        (&GATE, &UPSTREAM, (8000, "http"), true),
        (&GATE, &NAMES, (53, "dns"), true),
        (&COLLECTOR, &NAMES, (53, "dns"), true),
        (&GATE, &NAMES, (443, "https"), false),
        (&GATE, &OUTSIDE, (443, "https"), false),
        (&OUTSIDE, &STORE, store, false),
        (&OUTSIDE, &NATS, nats, false),
    ] {
        let (of, at) = (from.labels, to.labels);
        assert_eq!(
            reaches(from, to, port),
            expected,
            "{of:?} to {at:?} at {port:?}"
        );
    }
}

#[test]
fn the_operator_of_prometheus_finds_the_gates_and_the_collector_as_one_job() {
    let all = all();
    let monitor = object(&all, "ServiceMonitor", "tollgate");
    assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
    let spec = &monitor["spec"];
    let expected = ["jobLabel", "selector", "endpoints"];
    assert_eq!(keys(spec), expected.into_iter().collect());
    let [endpoint] = &spec["endpoints"].as_sequence().unwrap()[..] else {
        panic!("one endpoint");
    };
    let expected = ["port", "path", "interval", "scrapeTimeout", "authorization"];
    assert_eq!(keys(endpoint), expected.into_iter().collect());
    let services = all.iter().filter(|it| it["kind"] == "Service");
    let services = services.filter(|it| {
        let labels = it["metadata"]["labels"].as_mapping().into_iter().flatten();
        let labels: Vec<_> = labels
            .map(|(key, value)| (key.as_str().unwrap(), value.as_str().unwrap()))
            .collect();
        selects(&spec["selector"], &labels)
    });
    let found: Vec<&str> = services
        .map(|service| {
            let mut ports = service["spec"]["ports"].as_sequence().unwrap().iter();
            assert!(ports.any(|port| port["name"] == endpoint["port"]));
            let job = &service["metadata"]["labels"][spec["jobLabel"].as_str().unwrap()];
            assert_eq!(job, "tollgate");
            service["metadata"]["name"].as_str().unwrap()
        })
        .collect();
    assert_eq!(found, ["tollgate-collector", "tollgate-each"]);
    let credentials = &endpoint["authorization"]["credentials"];
    let secret = object(&all, "Secret", credentials["name"].as_str().unwrap());
    let key = credentials["key"].as_str().unwrap();
    assert!(secret["stringData"][key].is_string());
}
