//! `NEAREST_KERNELS` chooses the table of a process; so each choice is tried in a process of its own.

use std::process::Command;

use nearest_kernels::Kernels;

/// Run by the other tests with the variable set; says what was chosen.
#[test]
fn tell() {
    println!("chosen {}; missing {:?}.", Kernels::best().name(), Kernels::requested_but_missing());
}

fn told(value: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tell", "--nocapture"]).env_remove("NEAREST_KERNELS");
    if let Some(value) = value {
        command.env("NEAREST_KERNELS", value);
    }
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn the_strongest_is_chosen_unless_another_is_asked_for() {
    let strongest = Kernels::available().last().unwrap().name();
    for value in [None, Some("")] {
        assert!(told(value).contains(&format!("chosen {strongest}; missing None.")));
    }
    for kernels in Kernels::available() {
        let name = kernels.name();
        assert!(told(Some(name)).contains(&format!("chosen {name}; missing None.")));
        assert!(told(Some(&format!(" {} ", name.to_uppercase()))).contains(&format!("chosen {name};")));
    }
}

#[test]
fn a_name_that_is_missing_is_told() {
    let strongest = Kernels::available().last().unwrap().name();
    let said = told(Some("mmx"));
    assert!(said.contains(&format!("chosen {strongest}; missing Some(")), "{said}");
    assert!(said.contains("mmx") && said.contains("available here: portable"), "{said}");
}

#[test]
fn portable_comes_first_and_names_are_found() {
    assert_eq!(Kernels::available()[0].name(), "portable");
    for kernels in Kernels::available() {
        assert!(std::ptr::eq(Kernels::named(kernels.name()).unwrap(), *kernels));
    }
    assert!(Kernels::named("mmx").is_none());
}
