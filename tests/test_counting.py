from paramgen.core.counting import counted


def test_counts_agree_with_what_they_count():
    counts = [counted(n, "network") for n in (0, 1, 2, 1210)]
    assert counts == ["0 networks", "1 network", "2 networks", "1,210 networks"]
    assert counted(2, "entry", "entries") == "2 entries"
