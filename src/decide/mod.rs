//! From the defect map to a verdict.
