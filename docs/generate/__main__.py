"""Write the generated pages of the documentation."""

from docs.generate import write_pages

for name in write_pages() or ["nothing changed"]:
    print(name)
