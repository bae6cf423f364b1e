//! The effective configuration as the admin interface shows it. There is no secret in it: keys are named by path.

use serde_json::{Value, json};

use policy::{Compat, PathNormalization, Unselected};

use crate::config::{
    AuditTarget, Calls, Config, Dns, IdentitySource, Istio, Outbound, PolicySource, Services, ServicesFrom,
};

pub(super) fn describe(config: &Config) -> Value {
    json!({
        "vouchsafe": "proxy/v1",
        "identity": config.identity.as_ref().map(|id| id.as_str()),
        "source": source(&config.source),
        "policies": config.policies.as_ref().map(policies),
        "istio": istio(&config.istio),
        "inbound": config.inbound.iter().map(|listener| json!({
            "name": listener.name,
            "listen": listener.listen.to_string(),
            "protocol": listener.protocol.as_str(),
            "application": listener.application.to_string(),
        })).collect::<Vec<_>>(),
        "outbound": config.outbound.iter().map(outbound).collect::<Vec<_>>(),
        "services": services(&config.services),
        "admin": {
            "listen": config.admin.listen.map(|address| address.to_string()),
            "socket": config.admin.socket,
        },
        "audit": audit(config),
        "drain_ms": millis(config.drain),
        "drain_delay_ms": millis(config.lifecycle.drain_delay),
        "handover": config.lifecycle.handover.as_ref().map(|handover| json!({
            "socket": handover.socket,
            "drain_ms": millis(handover.drain),
        })),
        "generation": &*config.lifecycle.generation,
        "limits": limits(config),
    })
}

fn outbound(listener: &Outbound) -> Value {
    let (name, listen) = (&listener.name, listener.listen.to_string());
    match &listener.calls {
        Calls::To(service) => json!({"name": name, "listen": listen, "service": service}),
        Calls::Here(service) => json!({
            "name": name,
            "listen": listen,
            "protocol": service.protocol.as_str(),
            "endpoints": service.endpoints.iter().map(|to| to.address.to_string()).collect::<Vec<_>>(),
            "expect": service.expect.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        }),
    }
}

fn services(services: &Services) -> Value {
    json!({
        "own": services.own,
        "directory": services.directory,
        "from": match services.from {
            ServicesFrom::Nobody => None,
            ServicesFrom::Agent => Some("agent"),
        },
        "locality": services.locality.as_ref().map(ToString::to_string),
        "dns": match &services.dns {
            Dns::System => json!("system"),
            Dns::Servers(servers) => json!({"servers": servers}),
        },
    })
}

fn policies(source: &PolicySource) -> Value {
    match source {
        PolicySource::Directory(path) => json!(path),
        PolicySource::Agent { local, state_dir } => {
            json!({"from": "agent", "local": local, "state_dir": state_dir})
        }
    }
}

fn istio(istio: &Istio) -> Value {
    let mesh = &istio.mesh;
    json!({
        "namespace": istio.namespace,
        "labels": istio.labels,
        "trust_domain": istio.trust_domain.as_ref().map(identity::TrustDomain::as_str),
        "root_namespace": mesh.root_namespace,
        "trust_domain_aliases": mesh.trust_domain_aliases,
        "path_normalization": match mesh.path_normalization {
            PathNormalization::None => "none",
            PathNormalization::Base => "base",
            PathNormalization::MergeSlashes => "merge_slashes",
            PathNormalization::DecodeAndMergeSlashes => "decode_and_merge_slashes",
        },
        "compat": match mesh.compat {
            Compat::Sidecar => "sidecar",
            Compat::Ambient => "ambient",
        },
        "danger_allow_unselected": mesh.unselected == Unselected::Allow,
    })
}

fn source(source: &IdentitySource) -> Value {
    match source {
        IdentitySource::Environment => {
            let socket = std::env::var(crate::workload_api::ENVIRONMENT).ok();
            json!({"workload_api": socket, "from": crate::workload_api::ENVIRONMENT})
        }
        IdentitySource::WorkloadApi(endpoint) => json!({"workload_api": endpoint.to_string()}),
        IdentitySource::Pem(files) => {
            let federated: serde_json::Map<String, Value> = (files.federated.iter())
                .map(|(trust_domain, path)| (trust_domain.as_str().to_owned(), json!(path)))
                .collect();
            json!({"pem": {
                "certificate": files.certificate,
                "key": files.key,
                "bundle": files.bundle,
                "federated": federated,
            }})
        }
    }
}

fn audit(config: &Config) -> Value {
    let target = match &config.audit.target {
        AuditTarget::File(path) => json!(path),
        AuditTarget::Stdout => json!("stdout"),
    };
    json!({
        "target": target,
        "rotate_bytes": config.audit.rotate_size,
        "rotate_age_ms": millis(config.audit.rotate_age),
        "keep": config.audit.keep,
    })
}

fn limits(config: &Config) -> Value {
    let limits = &config.limits;
    json!({
        "connections": limits.connections,
        "connections_per_listener": limits.connections_per_listener,
        "handshakes": limits.handshakes,
        "header_bytes": limits.header_size,
        "header_count": limits.header_count,
        "handshake_timeout_ms": millis(limits.handshake_timeout),
        "header_timeout_ms": millis(limits.header_timeout),
        "connect_timeout_ms": millis(limits.connect_timeout),
        "idle_timeout_ms": millis(limits.idle_timeout),
        "stall_timeout_ms": millis(limits.stall_timeout),
        "tcp_idle_timeout_ms": millis(limits.tcp_idle_timeout),
        "half_close_timeout_ms": millis(limits.half_close_timeout),
    })
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
