//! `docker build` with the classic builder (`DOCKER_BUILDKIT=0`).

mod common;

use common::{Instance, finish, shared, text};
use std::path::Path;

fn context(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, content).expect("write");
    }
    folder
}

/// `docker build ARGUMENTS FOLDER`: exit code, standard output, standard error.
fn build(vm: &Instance, folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut words = vec!["build"];
    words.extend(arguments);
    words.push(folder.to_str().expect("utf-8"));
    let mut command = vm.docker_command(&words);
    command.env("DOCKER_BUILDKIT", "0");
    let output = finish(command, "docker build");
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn built(vm: &Instance, folder: &Path, arguments: &[&str]) -> String {
    let (code, out, error) = build(vm, folder, arguments);
    assert_eq!(code, 0, "{out}\n{error}");
    out
}

#[test]
fn a_dockerfile_becomes_an_image_and_its_steps_are_cached() {
    let vm = shared();
    let folder = context(&[
        (
            "Dockerfile",
            "FROM busybox\nARG GREETING=hello\nENV WORD=$GREETING\nWORKDIR /app\nCOPY src/*.txt ./\nRUN echo $WORD > said && echo on-stdout\n\
             EXPOSE 80\nVOLUME /data\nUSER nobody\nLABEL made=here\nCMD [\"cat\", \"said\", \"a.txt\"]\n",
        ),
        ("src/a.txt", "from the context\n"),
        ("src/b.md", "not copied\n"),
    ]);
    let out = built(
        vm,
        folder.path(),
        &["-t", "built:1", "--build-arg", "GREETING=hi"],
    );
    for expected in [
        "Step 1/11 : FROM busybox",
        " ---> Running in ",
        "on-stdout",
        " ---> Removed intermediate container ",
        "Successfully built ",
        "Successfully tagged built:1",
    ] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    assert_eq!(
        vm.docker(&["run", "--rm", "built:1"]),
        "hi\nfrom the context"
    );
    assert_eq!(
        vm.docker(&["run", "--rm", "built:1", "ls", "/app"]),
        "a.txt\nsaid"
    );
    let shown = vm.docker(&[
        "image",
        "inspect",
        "-f",
        "{{.Config.User}} {{.Config.WorkingDir}} {{.Config.Labels.made}}",
        "built:1",
    ]);
    assert_eq!(shown, "nobody /app here");
    let again = built(
        vm,
        folder.path(),
        &["-t", "built:1", "--build-arg", "GREETING=hi"],
    );
    assert!(!again.contains("Running in"), "{again}");
    assert!(again.contains("Using cache"), "{again}");
    // A changed file: from its COPY on the steps run again.
    std::fs::write(folder.path().join("src/a.txt"), "changed\n").expect("write");
    let changed = built(
        vm,
        folder.path(),
        &["-t", "built:1", "--build-arg", "GREETING=hi"],
    );
    assert!(
        changed.contains("Using cache") && changed.contains("Running in"),
        "{changed}"
    );
    assert_eq!(vm.docker(&["run", "--rm", "built:1"]), "hi\nchanged");
    assert_eq!(vm.docker(&["ps", "-aq"]), "");
}

#[test]
fn stages_copy_from_one_another() {
    let vm = shared();
    let folder = context(&[(
        "Dockerfile",
        "ARG BASE=busybox\nFROM ${BASE} AS first\nRUN echo made > /made\nFROM first AS unused\nRUN echo unused > /unused\n\
         FROM busybox\nCOPY --from=first --chown=nobody:nogroup /made /copied\nCOPY --from=0 /made /by-number\n",
    )]);
    built(vm, folder.path(), &["-q", "-t", "staged"]);
    let shown = vm.docker(&[
        "run",
        "--rm",
        "staged",
        "sh",
        "-c",
        "cat /copied /by-number; stat -c %U /copied",
    ]);
    assert_eq!(shown, "made\nmade\nnobody");
    let out = built(
        vm,
        folder.path(),
        &["--target", "first", "-t", "first-stage"],
    );
    assert!(out.contains("Step 3/3"), "{out}");
}

#[test]
fn what_fails_says_why_in_dockers_words() {
    let vm = shared();
    for (dockerfile, code, words) in [
        (
            "FROM busybox\nRUN exit 7\n",
            7,
            "The command '/bin/sh -c exit 7' returned a non-zero code: 7",
        ),
        (
            "FROM busybox\nCOPY none /x\n",
            1,
            "COPY failed: file not found in build context or excluded by .dockerignore: stat none: file does not exist",
        ),
        (
            "FROM busybox\nFOO bar\n",
            1,
            "dockerfile parse error on line 2: unknown instruction: FOO",
        ),
        (
            "FROM busybox\nRUN --mount=type=cache,target=/x true\n",
            1,
            "the --mount option requires BuildKit",
        ),
    ] {
        let folder = context(&[("Dockerfile", dockerfile)]);
        let (got, out, error) = build(vm, folder.path(), &[]);
        assert_eq!(got, code, "{out}\n{error}");
        assert!(error.contains(words), "{error}");
    }
}
