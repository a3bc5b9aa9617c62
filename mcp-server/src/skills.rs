//! The skills: what a model can read to learn how the platform is used, part of the program.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// A file of a skill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its path, which begins with the skill's name.
    pub path: &'static str,
    /// Its content.
    pub text: &'static str,
}

macro_rules! files {
    ($($path:literal),+ $(,)?) => {
        &[$(File { path: $path, text: include_str!(concat!("../../skills/", $path)) }),+]
    };
}

/// Every file, skill by skill in the order that clients see, `SKILL.md` first.
pub const FILES: &[File] = files![
    "start-here/SKILL.md",
    "start-here/references/more-apps.md",
    "build-a-web-app/SKILL.md",
    "build-a-web-app/references/sdk.md",
    "build-a-web-app/references/http.md",
    "data-and-access/SKILL.md",
    "data-and-access/references/manifest.md",
    "data-and-access/references/rules.md",
    "auth-and-accounts/SKILL.md",
    "auth-and-accounts/references/factors.md",
    "auth-and-accounts/references/providers.md",
    "files-and-images/SKILL.md",
    "realtime/SKILL.md",
    "write-functions/SKILL.md",
    "write-functions/references/triggers.md",
    "run-services/SKILL.md",
    "domains/SKILL.md",
    "debug-and-verify/SKILL.md",
    "debug-and-verify/references/errors.md",
    "change-data-safely/SKILL.md",
    "manage-environments/SKILL.md",
    "credentials-and-limits/SKILL.md",
    "work-in-a-sandbox/SKILL.md",
];

/// A skill (agentskills.io/specification).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    /// Its name, which is its directory's.
    pub name: &'static str,
    /// What it is for, in a sentence or two.
    pub description: &'static str,
    /// What a model reads: its `SKILL.md` without the frontmatter.
    pub body: &'static str,
    /// Its files, `SKILL.md` first.
    pub files: Vec<File>,
    /// The words of its name, of its description, and of its files.
    words: [BTreeSet<String>; 3],
}

/// Every skill.
#[must_use]
pub fn all() -> &'static [Skill] {
    static SKILLS: LazyLock<Vec<Skill>> = LazyLock::new(|| FILES.iter().filter_map(skill).collect());
    &SKILLS
}

/// The skill with that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Skill> {
    all().iter().find(|skill| skill.name == name)
}

/// The file at that path, or the only one whose path ends so: `references/rules.md` in a skill is below the skill.
#[must_use]
pub fn file(path: &str) -> Option<&'static File> {
    let below = |file: &&File| file.path.strip_suffix(path).is_some_and(|before| before.ends_with('/'));
    let exact = FILES.iter().find(|file| file.path == path);
    exact.or_else(|| {
        let mut found = FILES.iter().filter(below);
        found.next().filter(|_| found.next().is_none())
    })
}

/// How many words of a question are looked at.
const WORDS: usize = 32;

/// What a word is worth in a skill's name, in its description, and in its texts.
const WORTH: [usize; 3] = [900, 400, 100];

/// The skill that fits a question best, if any of its words is in one.
#[must_use]
pub fn find(query: &str) -> Option<&'static Skill> {
    let mut scores = vec![0; all().len()];
    for word in words(query).filter(|word| word.len() > 2).take(WORDS) {
        for (place, worth) in WORTH.iter().enumerate() {
            let has = |skill: &Skill| skill.words[place].iter().any(|other| alike(other, &word));
            let having: Vec<usize> = (0..scores.len()).filter(|at| has(&all()[*at])).collect();
            // What many skills speak of tells little.
            having.iter().for_each(|at| scores[*at] += worth / having.len().pow(2));
        }
    }
    let best = scores.iter().copied().max().filter(|score| *score > 0)?;
    // The first of equals: the skills are in the order in which they are needed.
    scores.iter().position(|score| *score == best).and_then(|at| all().get(at))
}

/// Whether two words are the same but for an ending: `table` and `tables`, `sign` and `signed`.
fn alike(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    short.len() > 2 && long.strip_prefix(short).is_some_and(|ending| ending.len() < 4)
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The skill that a `SKILL.md` begins.
fn skill(file: &File) -> Option<Skill> {
    let name = file.path.strip_suffix("/SKILL.md")?;
    let (frontmatter, body) = file.text.strip_prefix("---\n")?.split_once("\n---\n")?;
    let field = |field: &str| {
        frontmatter.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": ")).map(str::trim)
    };
    let of_skill = |other: &&File| other.path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    let files: Vec<File> = FILES.iter().filter(of_skill).copied().collect();
    let description = field("description")?;
    Some(Skill {
        name: field("name").filter(|field| *field == name)?,
        description,
        body: body.trim_start(),
        words: [
            words(name).collect(),
            words(description).collect(),
            files.iter().flat_map(|file| words(file.text)).collect(),
        ],
        files,
    })
}

#[cfg(test)]
#[path = "skills_tests.rs"]
mod tests;
