"""Networks in the forms that other libraries load: one module a library, :mod:`paramgen.export.formats` lists them."""
