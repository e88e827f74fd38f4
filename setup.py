"""Which folders become packages: those under src, analysis, and conf as regraft.conf. All else is in pyproject.toml."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_namespace_packages("src", include=["regraft*", "hydra_plugins*"], exclude=["*__pycache__*"]),
        *find_packages(include=["analysis*"]),
        "regraft.conf",
    ],
    package_dir={"": "src", "analysis": "analysis", "regraft.conf": "conf"},
    package_data={
        "regraft": ["py.typed"],
        "regraft.conf": ["**/*.yaml"],
        "analysis.report": ["assets/*"],
    },
)
