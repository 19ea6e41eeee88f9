//! A cluster kit for tests, and one test file for each promise to users.
