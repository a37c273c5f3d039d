"""mmclust clusters images by a keyword: another keyword gives another clustering of them.

The public names are listed in `__init__.pyi`. Each is imported when it is first used, so that
`import mmclust as mm` takes milliseconds and does not import torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
