//! `/openapi.json` against the server that gives it out: every parameter, every status, both ways.
#![cfg(feature = "cli")]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use support::{Answer, Server};

struct Operation {
    method: String,
    path: String,
    parameters: Vec<Value>,
    responses: Value,
    has_body: bool,
}

/// Every operation of the document, its references resolved.
fn operations(document: &Value) -> Vec<Operation> {
    let resolved = |value: &Value| match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(&reference[1..])
            .expect("a part of the document")
            .clone(),
        None => value.clone(),
    };
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item
            .as_object()
            .expect("an item")
            .iter()
            .filter(|(name, _)| *name != "parameters")
        {
            let shared = item["parameters"].as_array().into_iter().flatten();
            let own = operation["parameters"].as_array().into_iter().flatten();
            all.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                parameters: shared.chain(own).map(&resolved).collect(),
                responses: operation["responses"]
                    .as_object()
                    .expect("responses")
                    .iter()
                    .map(|(status, response)| (status.clone(), resolved(response)))
                    .collect::<serde_json::Map<_, _>>()
                    .into(),
                has_body: operation.get("requestBody").is_some(),
            });
        }
    }
    all
}

impl Operation {
    fn query(&self) -> BTreeSet<String> {
        let named = self
            .parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query");
        named
            .map(|parameter| parameter["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// On a connection of its own: an answer may end it.
    fn ask(&self, server: &Server, query: &str, fields: &str, body: &str) -> Answer {
        let path = self.path.replace("{key}", "some%20key");
        let body = if self.has_body { body } else { "" };
        let request = format!("{} {path}{query}{fields}", self.method);
        if self.responses["200"]["content"]["text/event-stream"].is_object() {
            // It has no end, so its head has to do.
            let mut client = server.connect();
            client.request(&request, body);
            let answer = client.answer(true).expect("an answer");
            if answer.status == 200 {
                return answer;
            }
        }
        server.connect().ask(&request, body)
    }

    /// The answer is one that the document knows, down to its media type and fields.
    fn check(&self, what: &str, answer: &Answer) {
        let name = format!("{} {}{what}", self.method, self.path);
        let response = self.responses.get(answer.status.to_string());
        let response = response.unwrap_or_else(|| {
            panic!(
                "{name}: {} is not in the document: {answer:?}",
                answer.status
            )
        });
        let media_type = answer.field("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default();
        if let Some(content) = response["content"].as_object() {
            let known = content
                .keys()
                .any(|known| known == media_type || known == "*/*");
            assert!(
                known || self.method == "HEAD",
                "{name}: {} {media_type} is not in the document",
                answer.status
            );
        } else {
            assert!(
                answer.body.is_empty(),
                "{name}: {} has content that is not in the document: {answer:?}",
                answer.status
            );
        }
        for (field, _) in response["headers"].as_object().into_iter().flatten() {
            let optional = matches!(
                field.as_str(),
                "TTL-Ms" | "Content-Digest" | "Preference-Applied" | "Retry-After"
            );
            assert!(
                optional || answer.field(&field.to_lowercase()).is_some(),
                "{name}: no {field}: {answer:?}"
            );
        }
    }
}

#[test]
fn the_document_is_complete_and_true() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = Server::start(&["--data-dir", directory.path().to_str().expect("UTF-8")]);
    let mut client = server.connect();
    let document = client.ask("GET /openapi.json", "").json();
    for operation in operations(&document) {
        let name = format!("{} {}", operation.method, operation.path);
        client.ask("PUT /v1/kv/some%20key", "{}");
        let answer = operation.ask(&server, "", "", "{}");
        operation.check("", &answer);

        // Names: those that the server lists when it meets one that it does not know.
        let query = operation.query();
        let answer = operation.ask(&server, "?no-such-name=1", "", "{}");
        if operation.path.starts_with("/v1") {
            assert_eq!(answer.status, 400, "{name}: {answer:?}");
            if operation.method != "HEAD" {
                let detail = answer.json()["detail"]
                    .as_str()
                    .expect("a sentence")
                    .to_owned();
                let known = detail.split("known here: ").nth(1).expect("names");
                let known: BTreeSet<String> = known
                    .split(", ")
                    .filter(|name| *name != "none")
                    .map(str::to_owned)
                    .collect();
                assert_eq!(known, query, "{name}");
            }
        }
        operation.check("?no-such-name=1", &answer);

        // Values: each parameter with one that its description gives as right, and one that is wrong.
        for parameter in operation
            .parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
        {
            let parameter_name = parameter["name"].as_str().expect("a name");
            let schema = &parameter["schema"];
            let right = match (schema["enum"].as_array(), schema["type"].as_str()) {
                (Some(choices), _) => choices[0]
                    .as_str()
                    .map_or_else(|| choices[0].to_string(), str::to_owned),
                (None, Some("boolean")) => "true".to_owned(),
                (None, Some("integer")) => "1".to_owned(),
                _ if parameter_name.to_lowercase().contains("ttl") => "90s".to_owned(),
                _ => "1".to_owned(),
            };
            let query = format!("?{parameter_name}={right}");
            let answer = operation.ask(&server, &query, "", "{}");
            operation.check(&query, &answer);
            let wrong = format!("?{parameter_name}=%7Bwrong%7D");
            let answer = operation.ask(&server, &wrong, "", "{}");
            operation.check(&wrong, &answer);
            // `/kv` ignores what it does not know; what the document says that it knows, it does not ignore.
            if operation.path.starts_with("/kv") && parameter_name != "skipOtherNodes" {
                assert_eq!(answer.status, 400, "{name}{wrong}");
            }
        }

        // Keys and bodies that are refused, conditions that do not hold.
        if operation.path.contains("{key}") {
            for key in [
                "__reserved",
                "%zz",
                "%ff",
                "",
                "never/there",
                &"k".repeat(2_000),
            ] {
                let path = operation.path.replace("{key}", key);
                let body = if operation.has_body { "{}" } else { "" };
                let answer = client.ask(&format!("{} {path}", operation.method), body);
                operation.check(&format!(" of {key:.20}"), &answer);
            }
            client.ask("PUT /v1/kv/some%20key", "{}");
            for fields in [
                "\nIf-Match: \"0\"",
                "\nIf-None-Match: *",
                "\nIf-None-Match: nonsense",
                "\nWant-Content-Digest: sha-256=1",
                "\nPrefer: return=representation",
            ] {
                let answer = operation.ask(&server, "", fields, "{\"x\":1}");
                operation.check(fields, &answer);
                client.ask("PUT /v1/kv/some%20key", "{}");
            }
        }
        if operation.has_body {
            for (fields, body) in [
                ("", ""),
                ("", "{"),
                ("\nContent-Type: text/plain", "x"),
                ("\nContent-Type: application/json-patch+json", "[1]"),
                (
                    "\nContent-Type: application/x-ndjson",
                    "{\"op\":\"get\",\"key\":\"a\"}",
                ),
                ("\nContent-Digest: sha-256=:AAAA:", "{}"),
                ("\nContent-Encoding: gzip", "{}"),
                ("", "{\"ops\":[]}"),
                ("\nContent-Type: nonsense", "1"),
            ] {
                let answer = operation.ask(&server, "", fields, body);
                operation.check(&format!("{fields} {body}"), &answer);
            }
            if operation.path == "/v1/admin/restore" {
                // Takes what the memory holds.
                continue;
            }
            let mut large = server.connect();
            large
                .send(format!(
                    "{} {} HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999\r\n\r\n",
                    operation.method,
                    operation.path.replace("{key}", "a")
                ))
                .expect("it is taken");
            let answer = large.answer(false).expect("an answer");
            assert_eq!(answer.status, 413, "{name}");
            operation.check(" too large", &answer);
        }
    }
}
