# CPU:   docker build -t litlab .
# CUDA:  docker build -t litlab --build-arg TORCH=cu128 .     (an index of PyTorch's: cu126, cu128, ...)
# Run:   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" litlab train data=digits
FROM python:3.11-slim
ARG TORCH=cpu

# git: a run records its commit; make: `make run` in a project.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/litlab
COPY constraints.txt pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY conf conf
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt \
    --extra-index-url "https://download.pytorch.org/whl/${TORCH}" .

# Any user may run it: `--user` makes the files in a mounted folder the caller's own.
RUN useradd --create-home litlab && mkdir /work && chown litlab /work
ENV HOME=/tmp
USER litlab
WORKDIR /work
ENTRYPOINT ["litlab"]
CMD ["--help"]
