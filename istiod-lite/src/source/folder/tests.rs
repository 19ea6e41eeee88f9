//! The folder as users treat it.

use std::fs;

use super::*;
use crate::resources::Kind;
use crate::resources::unread::Unread;

const DENY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec:
  action: DENY
  rules:
  - from:
    - source: {ipBlocks: [10.0.0.0/8]}
";
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}], selector: {app: web}}
";

fn deny() -> Key {
    Key::new(Kind::AuthorizationPolicy, Some("shop"), "deny")
}

fn web() -> Key {
    Key::new(Kind::Service, Some("shop"), "web")
}

#[test]
fn errors_say_where() {
    let bad = |from: &str, to: &str| format!("# first\n---\n{SERVICE}---\n{}", DENY.replace(from, to));
    for (text, expected) in [
        (
            bad("10.0.0.0/8", "10.0.0.0/33"),
            "f.yaml:15:27: AuthorizationPolicy shop/deny: spec.rules[0].from[0].source.ipBlocks[0]: \"10.0.0.0/33\" is",
        ),
        (
            bad("ipBlocks", "ipBlock"),
            "f.yaml:15:16: AuthorizationPolicy shop/deny: spec.rules[0].from[0].source.ipBlock: unknown field `ipBlock`",
        ),
        (
            bad("action: DENY", "action: DENI"),
            "f.yaml:12:3: AuthorizationPolicy shop/deny: spec.action: unknown variant",
        ),
        (
            bad("rules:", "rulez:"),
            "f.yaml:13:3: AuthorizationPolicy shop/deny: spec.rulez: unknown field `rulez`: did you mean `rules`?",
        ),
        (
            bad("  action: DENY", "  action: DENY\n  action: ALLOW"),
            "f.yaml:13:3: the field action is there twice: keep one of the two",
        ),
        (
            bad("[10.0.0.0/8]", "[]"),
            "f.yaml:15:16: AuthorizationPolicy shop/deny: spec.rules[0].from[0].source.ipBlocks: an empty list",
        ),
        (
            bad("{name: deny, namespace: shop}", "{namespace: shop}"),
            "f.yaml:10:1: AuthorizationPolicy: metadata.name: missing",
        ),
        (bad("kind: AuthorizationPolicy\n", ""), "f.yaml:8:1: shop/deny: kind: missing"),
        (
            bad("security.istio.io/v1", "security.istio.io/v9"),
            "f.yaml:8:1: AuthorizationPolicy shop/deny: apiVersion: version",
        ),
        (bad("{ipBlocks: [10.0.0.0/8]}", "{ipBlocks: [10.0.0.0/8}"), "f.yaml:15:"),
    ] {
        let parsed = parse_file(Path::new("f.yaml"), &text);
        assert_eq!(parsed.objects.len(), 1, "the good one is read: {text}");
        assert_eq!(parsed.errors.len(), 1, "{text}");
        let error = parsed.errors[0].to_string();
        assert!(error.starts_with(expected), "\n got: {error}\nwant: {expected}");
    }
}

#[test]
fn lists_and_json_are_read_and_a_bad_item_is_left_out_alone() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n\
                - apiVersion: v1\n  kind: Service\n  metadata: {name: b}\n  spec: {ports: [{port: 0}]}\n\
                - apiVersion: v1\n  kind: Namespace\n  metadata: {name: c}\n";
    let parsed = parse_file(Path::new("l.yaml"), list);
    assert_eq!(
        parsed.objects.iter().map(|o| (o.object.key().to_string(), o.line)).collect::<Vec<_>>(),
        [("Namespace a".to_owned(), 4), ("Namespace c".to_owned(), 11)]
    );
    assert_eq!(
        parsed.errors[0].to_string(),
        "l.yaml:10:19: Service b: spec.ports[0].port: 0 is not a port: write 1 to 65535"
    );
    let json = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"a/b\"}\n}\n";
    let parsed = parse_file(Path::new("n.json"), json);
    assert!(
        parsed.errors[0].to_string().starts_with("n.json:4:15: Namespace a/b: metadata.name:"),
        "{:?}",
        parsed.errors
    );
}

#[test]
fn kinds_that_are_not_read_are_told_apart() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\napiVersion: v1\nkind: Podd\nmetadata: {name: p}\n\
                ---\napiVersion: x.io/v1\nkind: Thing\nmetadata: {name: t}\n---\napiVersion: networking.k8s.io/v1\n\
                kind: NetworkPolicy\nmetadata: {name: n}\n---\napiVersion: networking.istio.io/v1\nkind: EnvoyFilter\n\
                metadata: {name: s}\n";
    let parsed = parse_file(Path::new("f"), text);
    assert_eq!(
        parsed.skipped.iter().map(|s| (s.line, &*s.kind, s.what)).collect::<Vec<_>>(),
        [
            (1, "apps/v1 Deployment", Unread::SaysNothing),
            (9, "x.io/v1 Thing", Unread::Unknown),
            (13, "networking.k8s.io/v1 NetworkPolicy", Unread::NotEnforced),
            (17, "networking.istio.io/v1 EnvoyFilter", Unread::NotEnforced),
        ]
    );
    assert_eq!(
        parsed.errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["f:6:1: Podd p: kind: v1 Podd is not known here: did you mean `Pod`?"]
    );
    assert!(parsed.skipped[2].meaning().contains("is NOT kept from happening here"), "{}", parsed.skipped[2].meaning());
    assert!(!parsed.skipped[3].meaning().contains("spelt"), "{}", parsed.skipped[3].meaning());
}

#[test]
fn of_config_maps_the_mesh_configuration_is_read_and_its_last_good_version_serves() {
    let map = |name: &str, mesh: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: istio-system}}\ndata: {{mesh: '{mesh}'}}\n"
        )
    };
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("app.yaml"), map("app", "extensionProviders: []")).unwrap();
    let file = root.path().join("mesh.yaml");
    let mut folder = Folder::new(vec![root.path().into()], None);
    assert_eq!(step(&mut folder, &file, &map("istio", "rootNamespace: x")), ["+ConfigMap istio-system/istio"]);
    assert_eq!(folder.skipped().iter().map(|s| s.what).collect::<Vec<_>>(), [Unread::SaysNothing], "the one of app");
    assert_eq!(step(&mut folder, &file, &map("istio", "extensionProviders: 5")), Vec::<String>::new());
    let error = folder.errors()[0].to_string();
    assert!(error.contains(":4:") && error.contains("data.mesh.extensionProviders: expected a list"), "{error}");
    assert!(folder.errors()[0].last_good_kept);
    assert_eq!(step(&mut folder, &file, SERVICE), ["-ConfigMap istio-system/istio", "+Service shop/web"]);
}

/// Which of them a Gateway names is for whoever runs waypoints to ask.
#[test]
fn config_maps_that_may_say_how_a_waypoint_runs_are_read() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("size.yaml");
    let mut folder = Folder::new(vec![root.path().into()], None);
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: size, namespace: shop}\ndata: {deployment: '{}'}\n";
    assert_eq!(step(&mut folder, &file, map), ["+ConfigMap shop/size"]);
    assert!(folder.skipped().is_empty() && folder.errors().is_empty());
    assert_eq!(step(&mut folder, &file, &map.replace("deployment", "settings")), ["-ConfigMap shop/size"]);
}

/// Writes, rescans, and says what changed.
fn step(folder: &mut Folder, path: &Path, text: &str) -> Vec<String> {
    // A rename gives a new inode, so the stamp differs however fast the test runs.
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).unwrap();
    fs::rename(&temporary, path).unwrap();
    changes(folder)
}

fn changes(folder: &mut Folder) -> Vec<String> {
    let describe = |change| match change {
        Change::Apply(object) => format!("+{}", object.key()),
        Change::Delete(key) => format!("-{key}"),
        Change::Replace(..) | Change::Keys(..) => panic!("a folder says changes of single objects"),
    };
    folder.rescan().changes.into_iter().map(describe).collect()
}

#[test]
fn the_last_good_version_keeps_serving() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.yaml");
    let mut folder = Folder::new(vec![directory.path().to_owned()], None);
    let both = format!("{SERVICE}---\n{DENY}");
    assert_eq!(step(&mut folder, &path, &both).len(), 2);
    let good = folder.objects()[&deny()].clone();
    for (what, text) in [
        ("a bad value", format!("{SERVICE}---\n{}", DENY.replace("/8", "/99"))),
        ("an unknown field", format!("{SERVICE}---\n{}", DENY.replace("ipBlocks", "ipBlock"))),
        ("a kind misspelt", format!("{SERVICE}---\n{}", DENY.replace("AuthorizationPolicy", "AuthorisationPolicy"))),
        ("a version misspelt", format!("{SERVICE}---\n{}", DENY.replace("io/v1", "io/v2"))),
        ("no kind", format!("{SERVICE}---\n{}", DENY.replace("kind: AuthorizationPolicy", ""))),
        ("no YAML", format!("{SERVICE}---\n{}", DENY.replace("[10", "[[10"))),
        ("no YAML, moved up", format!("{}---\n{SERVICE}", DENY.replace("[10", "[[10"))),
    ] {
        assert_eq!(step(&mut folder, &path, &text), Vec::<String>::new(), "{what}");
        assert_eq!(folder.objects()[&deny()], good, "{what}");
    }
    assert!(folder.errors()[0].last_good_kept);
    // The other document of a broken file is taken as it is now.
    let edited = format!("{}---\n{}", SERVICE.replace("80", "81"), DENY.replace("/8", "/99"));
    assert_eq!(step(&mut folder, &path, &edited), ["+Service shop/web"]);
    // Deleting it for good deletes it, and mending it applies it.
    assert_eq!(step(&mut folder, &path, SERVICE), ["-AuthorizationPolicy shop/deny", "+Service shop/web"]);
    assert_eq!(step(&mut folder, &path, &both), ["+AuthorizationPolicy shop/deny"]);
    assert!(folder.errors().is_empty());
    fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(changes(&mut folder), Vec::<String>::new(), "not UTF-8");
    assert_eq!(folder.errors().len(), 1);
    fs::remove_file(&path).unwrap();
    assert_eq!(changes(&mut folder).len(), 2, "a file removed");
}

#[test]
fn a_folder_that_vanishes_takes_nothing_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (root, away) = (directory.path().join("root"), directory.path().join("away"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("f.yaml"), SERVICE).unwrap();
    let mut folder = Folder::new(vec![root.clone()], None);
    assert_eq!(changes(&mut folder), ["+Service shop/web"]);
    fs::rename(&root, &away).unwrap();
    assert_eq!(changes(&mut folder), Vec::<String>::new());
    assert!(folder.errors()[0].message.contains("cannot be read"));
}

/// A pipe by the name of a file: reading it may never end, and it was left out without a word.
#[test]
fn what_is_no_file_is_not_read_and_takes_nothing_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.yaml");
    fs::write(&path, SERVICE).unwrap();
    let mut folder = Folder::new(vec![directory.path().to_owned()], None);
    assert_eq!(changes(&mut folder), ["+Service shop/web"]);
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert_eq!(changes(&mut folder), Vec::<String>::new());
    assert!(folder.errors()[0].to_string().contains("f.yaml: not read: it is a pipe"), "{:?}", folder.errors());
}

#[test]
fn the_same_object_twice_is_an_error_and_the_first_is_served() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), SERVICE).unwrap();
    fs::write(directory.path().join("b.yaml"), SERVICE.replace("80", "81")).unwrap();
    let mut folder = Folder::new(vec![directory.path().to_owned()], None);
    folder.rescan();
    assert!(folder.errors()[0].to_string().contains("b.yaml:1:1: Service shop/web: already defined at"));
    let Object::Service(service) = &folder.objects()[&web()] else { panic!() };
    assert_eq!(service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port, 80);
}

#[test]
fn a_config_map_mount_is_read_once_and_followed_when_it_is_swapped() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let version = |name: &str, text: &str| {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("f.yaml"), text).unwrap();
        std::os::unix::fs::symlink(name, at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
    };
    version("..1", SERVICE);
    std::os::unix::fs::symlink("..data/f.yaml", at("f.yaml")).unwrap();
    let mut folder = Folder::new(vec![directory.path().to_owned()], None);
    assert_eq!(changes(&mut folder), ["+Service shop/web"]);
    version("..2", &SERVICE.replace("80", "81"));
    assert_eq!(changes(&mut folder), ["+Service shop/web"]);
    assert!(folder.errors().is_empty());
}

#[test]
fn the_overlay_adds_what_the_cluster_knows() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("user")).unwrap();
    fs::create_dir(at("overlay")).unwrap();
    let pod = |name: &str, more: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop{more}}}\nspec: {{containers: []}}\n"
        )
    };
    let user = |name: &str| pod(name, ", labels: {from: user}");
    let runs = |name: &str| pod(name, ", labels: {from: cluster}, uid: u1");
    let service = |spec: &str| {
        format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}\n")
    };
    fs::write(at("user/pod.yaml"), user("a") + &user("new") + &service("{ports: [{port: 80}]}")).unwrap();
    let ending = pod("ending", ", deletionTimestamp: \"2026-11-24T00:00:00Z\"");
    fs::write(
        at("overlay/status.yaml"),
        runs("a")
            + &ending
            + &service("{clusterIP: 10.96.0.1}").replace("{name: web,", "{name: web, resourceVersion: '7',")
            + &service("{}").replace("web", "gone")
            + "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n",
    )
    .unwrap();
    let mut folder = Folder::new(vec![at("user")], Some(at("overlay")));
    folder.rescan();
    assert_eq!(folder.errors(), []);
    let keys = |folder: &Folder| folder.objects().keys().map(ToString::to_string).collect::<Vec<_>>();
    // What was just written does not run yet; what was taken away ends; a service is there while it is translated.
    assert_eq!(keys(&folder), ["Node n1", "Pod shop/a", "Pod shop/ending", "Service shop/gone", "Service shop/web"]);
    let Object::Pod(pod) = &folder.objects()[&Key::new(Kind::Pod, Some("shop"), "a")] else { panic!() };
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["from"], "cluster", "as it runs, not as it is written");
    let Object::Service(web) = &folder.objects()[&Key::new(Kind::Service, Some("shop"), "web")] else { panic!() };
    let spec = web.spec.as_ref().unwrap();
    assert_eq!((spec.cluster_ip.as_deref(), spec.ports.as_ref().unwrap().len()), (Some("10.96.0.1"), 1));
    assert_eq!(web.metadata.resource_version.as_deref(), Some("7"));

    // What the machinery says is read by itself; what the user is just writing is not.
    fs::write(at("user/pod.yaml"), "").unwrap();
    fs::write(at("overlay/status.yaml"), runs("a")).unwrap();
    folder.rescan_overlay();
    assert_eq!(keys(&folder), ["Pod shop/a", "Service shop/web"]);
    folder.rescan();
    assert_eq!(keys(&folder), ["Pod shop/a"]);
}

/// A control plane that ends and is started again, with its state.
fn next_life(root: &Path, state: &Path, first_start: bool) -> Folder {
    let store = Store::open(state.join("last-good"), first_start).unwrap();
    Folder::new(vec![root.to_owned()], None).with_store(store, "istio-system")
}

/// What it is for: without the store the policy is withdrawn.
#[test]
fn the_last_good_version_outlives_the_control_plane() {
    let both = format!("{SERVICE}---\n{DENY}");
    for (what, text) in [
        ("a bad value", format!("{SERVICE}---\n{}", DENY.replace("/8", "/99"))),
        ("an unknown field", format!("{SERVICE}---\n{}", DENY.replace("ipBlocks", "ipBlock"))),
        ("a kind misspelt", format!("{SERVICE}---\n{}", DENY.replace("AuthorizationPolicy", "AuthorisationPolicy"))),
        ("no YAML", format!("{SERVICE}---\n{}", DENY.replace("[10", "[[10"))),
        ("nothing of it can be read", "kind: [".to_owned()),
    ] {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = root.path().join("f.yaml");
        let mut folder = next_life(root.path(), state.path(), true);
        assert_eq!(step(&mut folder, &path, &both).len(), 2);
        let good = folder.objects()[&deny()].clone();
        folder.keep();
        for restart in 0..2 {
            folder = next_life(root.path(), state.path(), false);
            step(&mut folder, &path, &text);
            assert_eq!(folder.objects().get(&deny()), Some(&good), "{what}, restart {restart}");
            assert!(folder.errors()[0].last_good_kept, "{what}: {:?}", folder.errors());
            folder.keep();
        }
        // Deleted while nobody looks is deleted, and mended is mended.
        fs::remove_file(&path).unwrap();
        folder = next_life(root.path(), state.path(), false);
        changes(&mut folder);
        assert!(folder.objects().is_empty(), "{what}");
        folder.keep();
        folder = next_life(root.path(), state.path(), false);
        step(&mut folder, &path, &text);
        assert!(!folder.objects().contains_key(&deny()), "what was deleted does not come back: {what}");
    }
}

/// What it is for: an entry that is not whole must not count as none.
#[test]
fn where_nobody_knows_what_was_in_force_its_scope_is_refused() {
    let closed = |namespace| Key::new(Kind::AuthorizationPolicy, Some(namespace), "istiod-lite-closed");
    let bad_field = DENY.replace("ipBlocks", "ipBlock");
    let bad_pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\nspec: {nodeNme: a}\n";
    let lost = |state: &Path| fs::remove_dir_all(state.join("last-good")).unwrap();
    let spoilt = |state: &Path| {
        for entry in fs::read_dir(state.join("last-good")).unwrap().map(|e| e.unwrap().path()) {
            if entry.extension().is_some() {
                let text = fs::read_to_string(&entry).unwrap();
                fs::write(&entry, &text[..text.len() - 9]).unwrap();
            }
        }
    };
    let whole = |_: &Path| {};
    for (what, then, text, expected) in [
        ("the store is lost", &lost as &dyn Fn(&Path), bad_field.as_str(), vec![closed("shop")]),
        ("an entry is not whole", &spoilt, &bad_field, vec![closed("shop")]),
        ("not even the namespace is known", &lost, "kind: [", vec![closed("istio-system")]),
        ("a pod is no policy", &lost, bad_pod, vec![]),
        ("all is right", &lost, DENY, vec![deny()]),
        ("what was last good is known", &whole, &bad_field, vec![deny()]),
    ] {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = root.path().join("f.yaml");
        let mut folder = next_life(root.path(), state.path(), true);
        step(&mut folder, &path, DENY);
        folder.keep();
        then(state.path());
        for restart in 0..2 {
            folder = next_life(root.path(), state.path(), false);
            step(&mut folder, &path, text);
            assert_eq!(folder.objects().keys().cloned().collect::<Vec<_>>(), expected, "{what}, restart {restart}");
            let said = folder.errors().iter().any(|e| e.message.contains("is refused until it is mended"));
            assert_eq!(said, expected.first().is_some_and(|key| *key.name == *"istiod-lite-closed"), "{what}");
            folder.keep();
        }
        step(&mut folder, &path, DENY);
        assert_eq!(folder.objects().keys().cloned().collect::<Vec<_>>(), [deny()], "{what}, mended");
        // From here on, what is new and wrong changes nothing.
        step(&mut folder, &root.path().join("new.yaml"), "kind: [");
        assert_eq!(folder.objects().keys().cloned().collect::<Vec<_>>(), [deny()], "{what}, something new");
    }
}

#[test]
fn a_fresh_mesh_refuses_what_is_wrong_and_nothing_else() {
    let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut folder = next_life(root.path(), state.path(), true);
    step(&mut folder, &root.path().join("f.yaml"), &DENY.replace("ipBlocks", "ipBlock"));
    assert_eq!((folder.objects().len(), folder.errors().len()), (0, 1));
    folder.keep();
    let mut folder = next_life(root.path(), state.path(), false);
    assert_eq!((changes(&mut folder).len(), folder.errors().len()), (0, 1));
}

#[test]
fn a_store_that_cannot_be_written_is_said() {
    let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut folder = next_life(root.path(), state.path(), true);
    fs::remove_dir(state.path().join("last-good")).unwrap();
    fs::write(state.path().join("last-good"), "").unwrap();
    step(&mut folder, &root.path().join("f.yaml"), DENY);
    folder.keep();
    assert!(folder.errors()[0].message.contains("will not outlive a restart"), "{:?}", folder.errors());
    fs::remove_file(state.path().join("last-good")).unwrap();
    changes(&mut folder);
    folder.keep();
    assert_eq!(folder.errors(), []);
}

/// One entry cannot be written; then the program ends, and the file is broken. What it is for: `unsettle`.
#[test]
fn what_could_not_be_kept_is_not_taken_for_what_was_never_there() {
    let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, format) = (root.path().join("f.yaml"), state.path().join("last-good/format"));
    let mut folder = next_life(root.path(), state.path(), true);
    changes(&mut folder);
    folder.keep();
    assert!(format.exists());
    step(&mut folder, &file, DENY);
    folder.keep();
    let entries = fs::read_dir(state.path().join("last-good")).unwrap().map(|entry| entry.unwrap().path());
    let entry = entries.into_iter().find(|path| path.extension().is_some_and(|e| e == "json")).unwrap();
    // In its place, something that no file can replace.
    fs::remove_file(&entry).unwrap();
    fs::create_dir(&entry).unwrap();
    fs::write(entry.join("in the way"), "").unwrap();
    step(&mut folder, &file, &DENY.replace("shop", "shop2"));
    folder.keep();
    assert!(folder.errors()[0].message.contains("will not outlive a restart"), "{:?}", folder.errors());
    assert!(!format.exists(), "the next life would believe that nothing was in force");
}

/// What it is for: `adopt`.
#[test]
fn a_file_that_is_renamed_and_broken_in_one_step_keeps_its_policy() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old.yaml"), directory.path().join("new.yaml"));
    for text in [DENY.replace("ipBlocks", "ipBlock"), "kind: [".to_owned()] {
        let mut folder = Folder::new(vec![directory.path().to_owned()], None);
        step(&mut folder, &old, DENY);
        fs::remove_file(&old).unwrap();
        assert_eq!(step(&mut folder, &new, &text), Vec::<String>::new());
        assert!(folder.errors()[0].last_good_kept);
        fs::remove_file(&new).unwrap();
        assert_eq!(changes(&mut folder), ["-AuthorizationPolicy shop/deny"]);
    }
}
