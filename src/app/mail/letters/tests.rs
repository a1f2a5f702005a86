//! Letters, written.

use super::*;

fn letters() -> Letters {
    load(None).unwrap()
}

fn load(directory: Option<&Path>) -> Result<Letters, LettersError> {
    Letters::load(directory, "https://app.example.com/base/".parse().unwrap(), "The Platform".to_owned())
}

fn message(payload: Value) -> Written {
    Written { payload, ..sample(Template::Welcome).unwrap() }
}

fn payload(template: Template) -> Value {
    sample(template).unwrap().payload
}

fn brand(locale: &str) -> Brand {
    Brand {
        name: Some("Acme <3".to_owned()),
        locale: Some(locale.to_owned()),
        time_zone: Some("Europe/Berlin".to_owned()),
        ..Brand::default()
    }
}

#[test]
fn every_letter_is_written_in_every_locale_with_all_that_it_speaks_of() {
    let letters = letters();
    assert_eq!(letters.locales(), ["de", "en"]);
    let secret = Secret::new("a+b/c".to_owned());
    for template in Template::ALL {
        for locale in ["de", "en"] {
            let written = message(payload(*template));
            let letter = letters.write(*template, &written, &brand(locale), Some(&secret)).unwrap();
            let name = format!("{locale} {}", template.as_str());
            assert!(!letter.subject.is_empty() && !letter.subject.contains('\n'), "{name}");
            for shown in [&letter.subject, &letter.text, &letter.html] {
                assert!(!shown.contains("{{") && !shown.contains("{%"), "{name}: {shown}");
            }
            // What people wrote is as they wrote it in text, and no mark-up in HTML.
            assert!(!letter.html.contains("<b>") && !letter.html.contains("Acme <3"), "{name}: {}", letter.html);
            let all = format!("{}{}", letter.subject, letter.text);
            for key in template.keys() {
                let value = payload(*template)[*key].clone();
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let text = if text.ends_with('Z') { "2030-06-01 12:00 CEST".to_owned() } else { text };
                assert!(*key == "change" || all.contains(&text), "{name} does not speak of {key}: {all}");
            }
            let link = format!("https://app.example.com/base{}?token=a%2Bb%2Fc", template.path());
            assert_eq!(letter.text.contains(&link), !template.path().is_empty(), "{name}: {}", letter.text);
        }
    }
}

#[test]
fn the_locale_is_the_nearest_that_there_is() {
    let letters = letters();
    let subject = |locale: &str| {
        let written = message(payload(Template::Welcome));
        letters.write(Template::Welcome, &written, &brand(locale), None).unwrap().subject
    };
    for german in ["de", "de-AT", "DE-de"] {
        assert!(subject(german).contains("ist eingerichtet"), "{german}");
    }
    for english in ["en-GB", "fr", "", "x"] {
        assert!(subject(english).contains("is ready"), "{english}");
    }
}

#[test]
fn a_letter_of_the_platform_is_in_its_name() {
    let written = message(payload(Template::PasswordReset));
    let letter = letters().write(Template::PasswordReset, &written, &Brand::default(), None).unwrap();
    assert_eq!(letter.subject, "Set a new password for The Platform");
    assert!(letter.text.contains("2030-06-01 10:00 UTC"), "{}", letter.text);
}

#[test]
fn names_of_several_lines_stay_on_one() {
    let payload = serde_json::json!({ "tenant": "Acme\r\nBcc: x\n\nPay", "slug": "acme", "name": "Ada" });
    let letter = letters().write(Template::Welcome, &message(payload), &Brand::default(), None).unwrap();
    assert_eq!(letter.subject, "Acme  Bcc: x  Pay is ready");
}

#[test]
fn a_value_that_is_missing_is_a_fault_and_no_gap() {
    let problem = letters().write(Template::Welcome, &message(Value::Null), &Brand::default(), None).unwrap_err();
    assert!(problem.starts_with("welcome: "), "{problem}");
}

#[test]
fn an_operator_replaces_texts_and_layouts() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    put("en.toml", "[welcome]\nsubject = \"Hi {{ name }}\"\nlines = [\"{{ tenant }}\"]\n");
    put("fr.toml", "[welcome]\nsubject = \"Bonjour {{ name }}\"\nlines = []\n");
    put("welcome.html", "<i>{{ values.name }}</i>");
    let letters = load(Some(directory.path())).unwrap();
    let written = message(serde_json::json!({ "tenant": "Acme", "slug": "acme", "name": "<Ada>" }));
    let letter = |locale: &str| letters.write(Template::Welcome, &written, &brand(locale), None).unwrap();
    assert_eq!((letter("en").subject.as_str(), letter("fr").subject.as_str()), ("Hi <Ada>", "Bonjour <Ada>"));
    assert_eq!(letter("en").html, "<i>&lt;Ada&gt;</i>");
    assert!(letter("de").subject.contains("ist eingerichtet"), "what was not replaced stays");

    for (name, text, problem) in [
        ("en.toml", "[wellcome]\nsubject = \"\"\nlines = []\n", "there is no letter wellcome"),
        ("en.toml", "[welcome]\nsubject = \"{{ name\"\nlines = []\n", "welcome: "),
        ("en.toml", "[welcome]\nsubject = \"{{ nam }}\"\nlines = []\n", "welcome: "),
        ("welcome.txt", "{{ vallues }}", "welcome: "),
        ("en.toml", "[welcome]\nsubjekt = \"\"\n", "unknown field"),
        ("letter.html", "{% if %}", "syntax error"),
        ("other.html", "", "there is no letter other"),
        ("notes.md", "", "neither"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(name), text).unwrap();
        let error = load(Some(directory.path())).err().expect(problem).to_string();
        assert!(error.contains(problem) && error.contains(name), "{error}");
    }
}
