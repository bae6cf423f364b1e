//! Models of policies as files.

use policy::strict::Source;
use serde_json::{Map, Value, json};

use crate::model::{AudienceModel, ISSUERS, JwtModel, LayerModel, PolicyModel, RuleModel};

/// Writes a policy as people would, though in JSON, which is YAML.
pub(crate) fn source(policy: &PolicyModel) -> Source {
    let mut root = Map::new();
    root.insert("vouchsafe".to_owned(), json!("policy/v1"));
    root.insert("name".to_owned(), json!(policy.name));
    root.insert("protects".to_owned(), json!(policy.protects));
    if let Some(day) = policy.shadow_until {
        root.insert("mode".to_owned(), json!("shadow"));
        root.insert("until".to_owned(), json!(format!("1970-01-0{}", day + 1)));
    }
    for (key, rules) in [("allow", &policy.allow), ("deny", &policy.deny)] {
        if !rules.is_empty() {
            root.insert(key.to_owned(), rules.iter().map(rule_value).collect());
        }
    }
    // The word, not a text that happens to read so.
    let text = Value::Object(root).to_string().replace("\"any\"", "any");
    Source::new(format!("{}.yaml", policy.name), text)
}

/// The file that declares the issuers, for a workload that nobody calls.
pub(crate) fn issuers() -> Source {
    let issuer = |(issuer, audiences): &(&str, &[&str])| {
        let mut value = json!({"issuer": issuer, "keys": {"url": format!("{issuer}/keys")}});
        if !audiences.is_empty() {
            value["audiences"] = json!(audiences);
        }
        value
    };
    let issuers: Vec<Value> = ISSUERS.iter().map(issuer).collect();
    let policy = json!({
        "vouchsafe": "policy/v1",
        "name": "issuers",
        "protects": "spiffe://nobody.test/none",
        "issuers": issuers,
    });
    Source::new("issuers.yaml".to_owned(), policy.to_string())
}

fn rule_value(rule: &RuleModel) -> Value {
    let mut value = Map::new();
    value.insert("name".to_owned(), json!(rule.name));
    value.insert("from".to_owned(), json!(rule.from));
    if !rule.except.is_empty() {
        value.insert("except".to_owned(), json!(rule.except));
    }
    if let Some(nets) = &rule.nets {
        value.insert("source_net".to_owned(), json!(nets));
    }
    if let Some(names) = &rule.sni {
        value.insert("sni".to_owned(), json!(names));
    }
    if let Some(jwt) = &rule.jwt {
        value.insert("jwt".to_owned(), jwt_value(jwt));
    }
    let (kind, mut layer) = layer_value(&rule.layer);
    match &rule.ports {
        None => layer.insert("port".to_owned(), json!("any")),
        Some(ports) => layer.insert("ports".to_owned(), ports.iter().map(port_value).collect()),
    };
    value.insert(kind.to_owned(), Value::Object(layer));
    Value::Object(value)
}

fn layer_value(layer: &LayerModel) -> (&'static str, Map<String, Value>) {
    let none = &Vec::new();
    let (kind, lists, headers) = match layer {
        LayerModel::Tcp => ("tcp", vec![], none),
        LayerModel::Http { methods, hosts, paths, headers } => {
            ("http", vec![("methods", methods), ("hosts", hosts), ("paths", paths)], headers)
        }
        LayerModel::Grpc { services, methods, hosts, headers } => {
            ("grpc", vec![("services", services), ("methods", methods), ("hosts", hosts)], headers)
        }
        LayerModel::Connect { hosts, .. } => ("connect", vec![("hosts", hosts)], none),
        LayerModel::Upgrade { protocols, hosts, paths, headers } => {
            ("upgrade", vec![("protocols", protocols), ("hosts", hosts), ("paths", paths)], headers)
        }
    };
    let mut value = Map::new();
    for (key, values) in lists {
        if let Some(values) = values {
            value.insert(key.to_owned(), json!(values));
        }
    }
    if !headers.is_empty() {
        let one = |(name, values): &(String, Option<Vec<String>>)| {
            (name.clone(), values.as_ref().map_or(json!("any"), |values| json!(values)))
        };
        value.insert("headers".to_owned(), Value::Object(headers.iter().map(one).collect()));
    }
    if let LayerModel::Connect { to_ports: Some(ports), .. } = layer {
        value.insert("to_ports".to_owned(), ports.iter().map(port_value).collect());
    }
    (kind, value)
}

fn jwt_value(jwt: &JwtModel) -> Value {
    let mut value = json!({"issuer": jwt.issuer});
    match &jwt.audience {
        AudienceModel::Unsaid => {}
        AudienceModel::Any => value["audience"] = json!("any"),
        AudienceModel::Only(audiences) => value["audiences"] = json!(audiences),
    }
    for (name, values) in &jwt.claims {
        match name.split_once('.') {
            Some((outer, inner)) => value["claims"][outer][inner] = json!(values),
            None => value["claims"][name] = json!(values),
        }
    }
    value
}

fn port_value((low, high): &(u16, u16)) -> Value {
    if low == high { json!(low) } else { json!(format!("{low}-{high}")) }
}
