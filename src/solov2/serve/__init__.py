"""HTTP service: PaddleHub's protocol, our own, and a page (pip install 'solov2[serve]')."""
