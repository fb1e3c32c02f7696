"""The performance model: how long an engine iteration takes, what follows from it, and how it is calibrated.

``clock`` is the iteration-time formula, ``hardware`` derives it from catalog figures and efficiencies, ``steady``
solves it for a load, ``estimate`` searches the highest rates, ``profile`` and ``fill`` make tables of them,
``calibrate`` fits it to load points. The clock alone needs no scipy.
"""
