"""A number of things that were found, of all that there are."""


class Count(int):
    """`found` of `total`: an int that prints as "12 of 25", whatever the format asks for."""

    total: int

    def __new__(cls, found: int, total: int) -> "Count":
        count = super().__new__(cls, found)
        count.total = total
        return count

    def __getnewargs__(self) -> tuple[int, int]:  # for copies, and on the way to other processes
        return int(self), self.total

    def __str__(self) -> str:
        return f"{int(self)} of {self.total}"

    def __format__(self, spec: str) -> str:
        return str(self)
