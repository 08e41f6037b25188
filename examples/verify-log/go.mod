module verify-log

go 1.25.0

// Below v0.40.0, tlog.TileHashReader lets some tiles through unchecked (CVE-2026-56865).
require golang.org/x/mod v0.40.0
